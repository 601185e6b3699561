// The interface tables (KMCL reference 2.5, 2.6): order, sizes, versions, reference counts.
#include <kmcl/wdk/wdf.h>

#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

template <typename Function>
PVOID Address(Function* function) {
  return reinterpret_cast<PVOID>(function);
}

// The functions in the order of the reference, which is not that of the header by accident.
const std::vector<PVOID>& ClientFunctions() {
  static const std::vector<PVOID> functions = {
      Address(VmbChannelAllocate),
      Address(VmbChannelCleanup),
      Address(VmbChannelCreateGpadlFromBuffer),
      Address(VmbChannelCreateGpadlFromMdl),
      Address(VmbChannelDeleteGpadl),
      Address(VmbChannelDisable),
      Address(VmbChannelEnable),
      Address(VmbChannelGetInterfaceInstance),
      Address(VmbChannelGetMmioSpace),
      Address(VmbChannelGetPointer),
      Address(VmbChannelInitSetClientContextSize),
      Address(VmbChannelInitSetFlags),
      Address(VmbChannelInitSetFriendlyName),
      Address(VmbChannelInitSetMaximumExternalData),
      Address(VmbChannelInitSetMaximumPacketSize),
      Address(VmbChannelInitSetProcessPacketCallbacks),
      Address(VmbChannelInitSetStateChangeCallbacks),
      Address(VmbChannelPacketComplete),
      Address(VmbChannelPacketDeferToPassive),
      Address(VmbChannelPacketFail),
      Address(VmbChannelPacketGetExternalData),
      Address(VmbChannelPause),
      Address(VmbChannelSendSynchronousRequest),
      Address(VmbChannelSetIncomingProcessingAtPassive),
      Address(VmbChannelSetInterruptLatency),
      Address(VmbChannelSetPointer),
      Address(VmbChannelSetTransactionQuota),
      Address(VmbChannelSizeofPacket),
      Address(VmbChannelStart),
      Address(VmbClientChannelInitSetRingBufferPageCount),
      Address(VmbClientChannelInitSetTargetPnp),
      Address(VmbPacketAllocate),
      Address(VmbPacketFree),
      Address(VmbPacketGetChannel),
      Address(VmbPacketGetPointer),
      Address(VmbPacketInitialize),
      Address(VmbPacketSend),
      Address(VmbPacketSendWithExternalMdl),
      Address(VmbPacketSendWithExternalPfns),
      Address(VmbPacketSetCompletionRoutine),
      Address(VmbPacketSetPointer),
      Address(VmbChannelPacketGetClientContext),
      Address(VmbChannelGetTargetDeviceObject),
      Address(VmbChannelGetParentDeviceObject),
      Address(VmbChannelInitSetBounceBufferSizes),
      Address(VmbChannelAllocateBounceBuffer),
      Address(VmbChannelInitSetMaximumPacketCount),
      Address(VmbChannelCreateGpadlFromPfnList),
      Address(VmbChannelInitSetPrimaryChannel),
      Address(VmbChannelInitialize),
      Address(VmbChannelSetAllowableDpcCpuUsage),
      Address(VmbClientChannelInitSetTargetProcessorIndex),
      Address(VmbSizeofChannel),
      Address(VmbChannelInitSetInlinePacketContextSize),
      Address(VmbPacketGetInlinePacketContextPointer),
      Address(VmbChannelInitSetProcessPacketCallbacksEx),
      Address(VmbPacketSetCompletionRoutineEx),
  };
  return functions;
}

const std::vector<PVOID>& ServerOnlyFunctions() {
  static const std::vector<PVOID> functions = {
      Address(VmbChannelMapGpadl),
      Address(VmbChannelRestoreFromBuffer),
      Address(VmbChannelSaveBegin),
      Address(VmbChannelSaveContinue),
      Address(VmbChannelSaveEnd),
      Address(VmbChannelUnmapGpadl),
      Address(VmbConvertVmbusHandleToKernelHandle),
      Address(VmbPacketRestore),
      Address(VmbServerChannelInitSetFlags),
      Address(VmbServerChannelInitSetMmioMegabytes),
      Address(VmbServerChannelInitSetSaveRestorePacketCallbacks),
      Address(VmbServerChannelInitSetTargetInterfaceId),
      Address(VmbServerChannelInitSetTargetVtl),
      Address(VmbServerChannelInitSetVmbusHandle),
      Address(VmbServerChannelInitSetSaveRestorePacketCallbacksEx),
  };
  return functions;
}

// How many functions each client table has.
constexpr std::size_t kClientCounts[] = {41, 44, 46, 48, 57};
constexpr USHORT kClientSizes[] = {360, 384, 400, 416, 488};
constexpr USHORT kServerSizes[] = {472, 496, 512, 528, 608};

class InterfaceTables : public DirectTest {
 protected:
  // As large as any, and filled with something else.
  struct Buffer {
    Buffer() { std::memset(bytes, 0xEE, sizeof(bytes)); }
    PINTERFACE header() { return reinterpret_cast<PINTERFACE>(bytes); }
    PVOID pointer(std::size_t index) const {
      PVOID value = nullptr;
      std::memcpy(&value, bytes + sizeof(INTERFACE) + index * sizeof(PVOID), sizeof(value));
      return value;
    }
    bool IsUntouchedFrom(std::size_t offset) const {
      for (std::size_t i = offset; i < sizeof(bytes); ++i) {
        if (bytes[i] != 0xEE) return false;
      }
      return true;
    }
    alignas(8) unsigned char bytes[1024];
  };

  PDEVICE_OBJECT server_device() { return KmclServerDeviceObject(server_); }
  PDEVICE_OBJECT client_device() { return KmclClientDeviceObject(client_); }
};

TEST_F(InterfaceTables, AClientsHasTheFunctionsOfItsVersionInOrder) {
  for (USHORT version = 1; version <= 5; ++version) {
    for (PDEVICE_OBJECT device : {client_device(), server_device()}) {
      Buffer table;
      ASSERT_EQ(Status(KmclQueryInterface(device, &KMCL_CLIENT_INTERFACE_TYPE, table.header(),
                                          kClientSizes[version - 1], version)),
                STATUS_SUCCESS);
      EXPECT_EQ(table.header()->Size, kClientSizes[version - 1]);
      EXPECT_EQ(table.header()->Version, version);
      for (std::size_t i = 0; i < kClientCounts[version - 1]; ++i) {
        EXPECT_EQ(table.pointer(i), ClientFunctions()[i]) << "version " << version << ", " << i;
      }
      EXPECT_TRUE(table.IsUntouchedFrom(kClientSizes[version - 1]));
      table.header()->InterfaceDereference(table.header()->Context);
    }
  }
}

TEST_F(InterfaceTables, AServersHasItsOwnFunctionsBehindThem) {
  for (USHORT version = 1; version <= 5; ++version) {
    Buffer table;
    ASSERT_EQ(Status(KmclQueryInterface(server_device(), &KMCL_SERVER_INTERFACE_TYPE,
                                        table.header(), sizeof(table.bytes), version)),
              STATUS_SUCCESS);
    EXPECT_EQ(table.header()->Size, kServerSizes[version - 1]) << "and not that of the buffer";
    EXPECT_EQ(table.header()->Version, version);
    const std::size_t shared = kClientCounts[version - 1];
    for (std::size_t i = 0; i < shared; ++i) EXPECT_EQ(table.pointer(i), ClientFunctions()[i]);
    for (std::size_t i = 0; i < (version == 5 ? 15u : 14u); ++i) {
      EXPECT_EQ(table.pointer(shared + i), ServerOnlyFunctions()[i]) << version << ", " << i;
    }
    EXPECT_TRUE(table.IsUntouchedFrom(kServerSizes[version - 1]));
    table.header()->InterfaceDereference(table.header()->Context);
  }
}

TEST_F(InterfaceTables, WhatIsWrongIsNamedAndNothingIsWritten) {
  Buffer table;
  const auto query = [&](PDEVICE_OBJECT device, LPCGUID type, PINTERFACE to, USHORT size,
                         USHORT version) {
    return Status(KmclQueryInterface(device, type, to, size, version));
  };
  const GUID other{1, 2, 3, {4, 5, 6, 7, 8, 9, 10, 11}};
  DEVICE_OBJECT foreign{};
  LPCGUID const client = &KMCL_CLIENT_INTERFACE_TYPE;
  LPCGUID const server = &KMCL_SERVER_INTERFACE_TYPE;
  EXPECT_EQ(query(nullptr, client, table.header(), 360, 1), STATUS_INVALID_PARAMETER);
  EXPECT_EQ(query(&foreign, client, table.header(), 360, 1), STATUS_INVALID_PARAMETER);
  EXPECT_EQ(query(client_device(), nullptr, table.header(), 360, 1), STATUS_INVALID_PARAMETER);
  EXPECT_EQ(query(client_device(), client, nullptr, 360, 1), STATUS_INVALID_PARAMETER);
  EXPECT_EQ(query(client_device(), &other, table.header(), 360, 1), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(query(client_device(), server, table.header(), 608, 1), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(query(client_device(), client, table.header(), 1024, 0), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(query(client_device(), client, table.header(), 1024, 6), STATUS_NOT_SUPPORTED);
  for (USHORT version = 1; version <= 5; ++version) {
    EXPECT_EQ(
        query(client_device(), client, table.header(), kClientSizes[version - 1] - 1, version),
        STATUS_BUFFER_TOO_SMALL);
    EXPECT_EQ(
        query(server_device(), server, table.header(), kServerSizes[version - 1] - 1, version),
        STATUS_BUFFER_TOO_SMALL);
  }
  EXPECT_TRUE(table.IsUntouchedFrom(0));
}

TEST_F(InterfaceTables, TheFrameworksQueriesGiveTheSame) {
  KMCL_CLIENT_INTERFACE_V1 client{};
  EXPECT_EQ(
      Status(WdfFdoQueryForInterface(KmclWdfDevice(client_device()), &KMCL_CLIENT_INTERFACE_TYPE,
                                     reinterpret_cast<PINTERFACE>(&client), sizeof(client),
                                     KMCL_CLIENT_INTERFACE_VERSION_V1, nullptr)),
      STATUS_SUCCESS);
  KMCL_SERVER_INTERFACE_V5 server{};
  EXPECT_EQ(Status(WdfIoTargetQueryForInterface(
                KmclWdfIoTarget(server_device()), &KMCL_SERVER_INTERFACE_TYPE,
                reinterpret_cast<PINTERFACE>(&server), sizeof(server),
                KMCL_SERVER_INTERFACE_VERSION_LATEST, nullptr)),
            STATUS_SUCCESS);
  // By name: a channel made through the table is one.
  VMBCHANNEL channel = nullptr;
  ASSERT_EQ(Status(client.VmbChannelAllocate(client_device(), FALSE, &channel)), STATUS_SUCCESS);
  client.VmbChannelSetPointer(channel, this);
  EXPECT_EQ(VmbChannelGetPointer(channel), this);
  client.VmbChannelCleanup(channel);
  EXPECT_EQ(Address(server.VmbServerChannelInitSetVmbusHandle),
            Address(VmbServerChannelInitSetVmbusHandle));
  EXPECT_EQ(Status(WdfFdoQueryForInterface(nullptr, &KMCL_CLIENT_INTERFACE_TYPE,
                                           reinterpret_cast<PINTERFACE>(&client), sizeof(client), 1,
                                           nullptr)),
            STATUS_INVALID_PARAMETER);
  client.InterfaceDereference(client.Context);
  server.InterfaceDereference(server.Context);
}

// What was logged, by this test.
class LoggedLines {
 public:
  LoggedLines() { KmclSetLogSink(Sink, this); }
  ~LoggedLines() { KmclSetLogSink(nullptr, nullptr); }
  LoggedLines(const LoggedLines&) = delete;
  LoggedLines& operator=(const LoggedLines&) = delete;
  int CountOf(const std::string& words) {
    const std::lock_guard lock(mutex_);
    int count = 0;
    for (const std::string& line : lines_) count += line.find(words) != std::string::npos;
    return count;
  }

 private:
  static VOID Sink(PVOID context, KMCL_LOG_LEVEL, const char* line) {
    auto* const self = static_cast<LoggedLines*>(context);
    const std::lock_guard lock(self->mutex_);
    self->lines_.emplace_back(line);
  }
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

TEST_F(InterfaceTables, ReferencesAreCountedAndLeftoversLogged) {
  LoggedLines logged;
  KMCL_CLIENT client = nullptr;
  ASSERT_EQ(Status(KmclClientConnect(address_.c_str(), nullptr, &client)), STATUS_SUCCESS);
  KMCL_CLIENT_INTERFACE_V5 table{};
  ASSERT_EQ(Status(KmclQueryInterface(KmclClientDeviceObject(client), &KMCL_CLIENT_INTERFACE_TYPE,
                                      reinterpret_cast<PINTERFACE>(&table), sizeof(table), 5)),
            STATUS_SUCCESS);
  table.InterfaceReference(table.Context);
  table.InterfaceDereference(table.Context);
  KmclClientDestroy(client);
  EXPECT_EQ(logged.CountOf("1 references to its interface tables"), 1);

  ASSERT_EQ(Status(KmclClientConnect(address_.c_str(), nullptr, &client)), STATUS_SUCCESS);
  ASSERT_EQ(Status(KmclQueryInterface(KmclClientDeviceObject(client), &KMCL_CLIENT_INTERFACE_TYPE,
                                      reinterpret_cast<PINTERFACE>(&table), sizeof(table), 5)),
            STATUS_SUCCESS);
  table.InterfaceDereference(table.Context);
  EXPECT_EQ(logged.CountOf("InterfaceDereference"), 0);
  table.InterfaceDereference(table.Context);
  EXPECT_EQ(logged.CountOf("InterfaceDereference"), 1) << "one too many";
  KmclClientDestroy(client);
  EXPECT_EQ(logged.CountOf("references to its interface tables"), 1);
}

}  // namespace

}  // namespace kmcl::contract
