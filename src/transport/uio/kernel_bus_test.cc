// What is read from sysfs, and what is written there. The kernel's answers to it are for
// tests/guest.
#include "transport/uio/kernel_bus.h"

#include <gtest/gtest.h>

#include "log.h"
#include "transport/uio/fake_bus.h"

namespace kmcl::transport::uio {
namespace {

class QuietLog {
 public:
  QuietLog() {
    SetLogSink([](void*, LogLevel, const char*) {}, nullptr);
  }
  ~QuietLog() { SetLogSink(nullptr, nullptr); }
};

TEST(KernelBusTest, ASystemWithoutABusHasNone) {
  const KernelBus none({.sysfs = "/nothing/here", .dev = "/nothing"});
  EXPECT_FALSE(none.present());
  EXPECT_EQ(none.Devices().error(), Error::kAddressUnreachable);
  EXPECT_EQ(none.Bind(kEcho).error(), Error::kAddressUnreachable);
}

TEST(KernelBusTest, DevicesAreReadWithWhatTheyHave) {
  FakeBus fake;
  fake.AddDevice(kEchoType, kEcho, 12);
  fake.AddDevice(kEchoType, kOther, 3);
  fake.SetUio(kEcho, 4, "0x0000000000022000");
  fake.SetDriver(kOther, "hv_utils");
  fake.Write(fake.Device(kEcho) / "monitor_id", "11\n");
  fake.Write(fake.Device(kEcho) / "state", "3\n");
  fake.AddSubchannel(kEcho, 15, 2);
  fake.AddSubchannel(kEcho, 14, 1);
  const auto devices = fake.bus().Devices();
  ASSERT_TRUE(devices.has_value());
  ASSERT_EQ(devices->size(), 2u);
  const BusDevice& other = (*devices)[0];
  EXPECT_EQ(other.instance, kOther);
  EXPECT_EQ(other.driver, "hv_utils");
  EXPECT_FALSE(other.uio.has_value());
  EXPECT_FALSE(other.monitor.has_value());
  EXPECT_FALSE(other.open);
  const BusDevice& echo = (*devices)[1];
  EXPECT_EQ(echo.interface_type, kEchoType);
  EXPECT_EQ(echo.id, wire::ChannelId{12});
  EXPECT_EQ(echo.driver, kUioDriver);
  EXPECT_EQ(echo.uio, 4u);
  EXPECT_EQ(echo.monitor, 11);
  EXPECT_TRUE(echo.open);
  EXPECT_EQ(echo.interrupts, 7u);
  EXPECT_EQ(echo.signals, 3u);
  ASSERT_EQ(echo.subchannels.size(), 2u);
  EXPECT_EQ(echo.subchannels[0].id, wire::ChannelId{14});
  EXPECT_TRUE(echo.subchannels[0].open);
  EXPECT_EQ(echo.subchannels[1].index, 2);
  const auto maps = fake.bus().Maps(4);
  ASSERT_TRUE(maps.has_value());
  ASSERT_EQ(maps->size(), 3u);
  EXPECT_EQ((*maps)[0].bytes, 0x22000u);
}

TEST(KernelBusTest, AnAttributeThatIsNoneMakesNoDevice) {
  const QuietLog quiet;
  const struct {
    const char* file;
    const char* text;
  } wrong[] = {{"class_id", "{799d7bf1}\n"},
               {"class_id", ""},
               {"device_id", "not a guid\n"},
               {"device_id", "{12345678-9abc-4def-8011-223344556677}\n"},
               {"id", "twelve\n"},
               {"id", "12 \n"},
               {"id", "4294967296\n"},
               {"id", ""}};
  for (const auto& each : wrong) {
    FakeBus fake;
    fake.AddDevice(kEchoType, kEcho, 12);
    fake.Write(fake.Device(kEcho) / each.file, each.text);
    EXPECT_EQ(fake.bus().Device(kEcho).error(), Error::kFieldOutOfRange) << each.file << each.text;
    const auto devices = fake.bus().Devices();
    ASSERT_TRUE(devices.has_value());
    EXPECT_TRUE(devices->empty());
  }
}

TEST(KernelBusTest, ADeviceThatIsJustComingOrGoingIsNoneYetAndNothingToWarnOf) {
  for (const char* file : {"class_id", "device_id", "id"}) {
    FakeBus fake;
    fake.AddDevice(kEchoType, kEcho, 12);
    std::filesystem::remove(fake.Device(kEcho) / file);
    int lines = 0;
    SetLogSink([](void* count, LogLevel, const char*) { ++*static_cast<int*>(count); }, &lines);
    EXPECT_EQ(fake.bus().Device(kEcho).error(), Error::kChannelUnknown) << file;
    SetLogSink(nullptr, nullptr);
    EXPECT_EQ(lines, 0) << file;
  }
}

TEST(KernelBusTest, AMonitorThatIsNoneIsNone) {
  FakeBus fake;
  fake.AddDevice(kEchoType, kEcho, 12);
  for (const char* text : {"255\n", "256\n", "-1\n", "x\n", ""}) {
    fake.Write(fake.Device(kEcho) / "monitor_id", text);
    EXPECT_FALSE(fake.bus().Device(kEcho)->monitor.has_value()) << text;
  }
}

TEST(KernelBusTest, ADeviceIsTakenFromItsDriverAndNoOther) {
  FakeBus fake;
  fake.AddDevice(kEchoType, kEcho, 12);
  fake.SetDriver(kEcho, "hv_utils");
  fake.Write(fake.Bus() / "drivers/hv_utils/unbind", "");
  ASSERT_TRUE(fake.bus().Bind(kEcho).has_value());
  EXPECT_EQ(FakeBus::Read(fake.Device(kEcho) / "driver_override"), kUioDriver);
  EXPECT_EQ(FakeBus::Read(fake.Bus() / "drivers/hv_utils/unbind"), wire::ToString(kEcho));
  EXPECT_EQ(FakeBus::Read(fake.Bus() / "drivers" / kUioDriver / "bind"), wire::ToString(kEcho));
}

TEST(KernelBusTest, WhatHasNotToBeBoundIsNot) {
  FakeBus fake;
  EXPECT_EQ(fake.bus().Bind(kEcho).error(), Error::kChannelUnknown);
  fake.AddDevice(kEchoType, kEcho, 12);
  EXPECT_EQ(fake.bus().Unbind(kEcho).error(), Error::kDriverNotBound);
  fake.SetUio(kEcho, 0, "8192");
  EXPECT_TRUE(fake.bus().Bind(kEcho).has_value());
  EXPECT_EQ(FakeBus::Read(fake.Bus() / "drivers" / kUioDriver / "bind"), "");
  std::filesystem::remove(fake.Device(kEcho) / "driver");
  std::filesystem::remove_all(fake.Bus() / "drivers" / kUioDriver);
  EXPECT_EQ(fake.bus().Bind(kEcho).error(), Error::kDriverMissing);
}

TEST(KernelBusTest, AnUnboundDeviceIsAnybodysAgain) {
  FakeBus fake;
  fake.AddDevice(kEchoType, kEcho, 12);
  fake.SetUio(kEcho, 0, "8192");
  fake.Write(fake.Device(kEcho) / "driver_override", std::string(kUioDriver) + "\n");
  ASSERT_TRUE(fake.bus().Unbind(kEcho).has_value());
  EXPECT_EQ(FakeBus::Read(fake.Bus() / "drivers" / kUioDriver / "unbind"), wire::ToString(kEcho));
  EXPECT_EQ(FakeBus::Read(fake.Device(kEcho) / "driver_override"), "");
  EXPECT_EQ(FakeBus::Read(fake.Bus() / "drivers_probe"), wire::ToString(kEcho));
}

}  // namespace
}  // namespace kmcl::transport::uio
