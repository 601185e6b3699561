// The devices of the machine, register by register, as a driver meets them.
#include <gtest/gtest.h>

#include <array>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "vmm/acpi.h"
#include "vmm/acpi_table.h"
#include "vmm/boot_loader.h"
#include "vmm/keyboard_controller.h"
#include "vmm/port_bus.h"
#include "vmm/power_control.h"
#include "vmm/real_time_clock.h"
#include "vmm/serial_port.h"

namespace kmcl::vmm {
namespace {

class SerialPortTest : public ::testing::Test {
 protected:
  std::string sent_;
  bool line_ = false;
  SerialPort port_{[this](std::byte byte) { sent_.push_back(static_cast<char>(byte)); },
                   [this](bool level) { line_ = level; }};
};

TEST_F(SerialPortTest, WhatIsWrittenGoesOutAndTheTransmitterIsEmptyAtOnce) {
  port_.Write(0, 'o');
  EXPECT_EQ(port_.Read(5) & 0x60, 0x60);
  port_.Write(0, 'k');
  EXPECT_EQ(sent_, "ok");
}

TEST_F(SerialPortTest, TheTransmitterInterruptsWhenItIsEnabledAndAfterEachByte) {
  port_.Write(1, 2);
  EXPECT_TRUE(line_);
  EXPECT_EQ(port_.Read(2) & 0x0F, 2);  // reading it is the acknowledgement
  EXPECT_FALSE(line_);
  port_.Write(0, 'x');
  EXPECT_TRUE(line_);
  port_.Write(1, 0);
  EXPECT_FALSE(line_);
}

TEST_F(SerialPortTest, InputInterruptsUntilItIsRead) {
  port_.Write(2, 1);
  port_.Write(1, 1);
  const std::array input = {std::byte{'a'}, std::byte{'b'}};
  ASSERT_TRUE(port_.Receive(input));
  EXPECT_TRUE(line_);
  EXPECT_EQ(port_.Read(2), 0xC4);
  EXPECT_EQ(port_.Read(5) & 1, 1);
  EXPECT_EQ(port_.Read(0), 'a');
  EXPECT_TRUE(line_);
  EXPECT_EQ(port_.Read(0), 'b');
  EXPECT_FALSE(line_);
  EXPECT_EQ(port_.Read(5) & 1, 0);
}

TEST_F(SerialPortTest, InputWaitsForRoomAndLosesNothing) {
  port_.Write(2, 1);
  std::string text;
  while (text.size() < SerialPort::kMostWaiting + 1000) {
    text += "more than may wait for the guest " + std::to_string(text.size());
  }
  std::thread sender([&] { EXPECT_TRUE(port_.Receive(std::as_bytes(std::span(text)))); });
  std::string seen;
  while (seen.size() < text.size()) {
    if ((port_.Read(5) & 1) != 0) {
      seen.push_back(static_cast<char>(port_.Read(0)));
    }
  }
  sender.join();
  EXPECT_EQ(seen, text);
}

TEST_F(SerialPortTest, InputOfAGuestThatDoesNotReadHoldsUpNobody) {
  port_.Write(2, 1);
  const std::string text(1000, 'x');
  EXPECT_TRUE(port_.Receive(std::as_bytes(std::span(text))));
  for (const char byte : text) {
    ASSERT_EQ(port_.Read(5) & 1, 1);
    ASSERT_EQ(port_.Read(0), byte);
  }
  EXPECT_EQ(port_.Read(5) & 1, 0);
}

TEST_F(SerialPortTest, ClosingTheInputFreesWhoeverWaits) {
  const std::vector<std::byte> input(SerialPort::kMostWaiting + 100);
  std::thread sender([&] { EXPECT_FALSE(port_.Receive(input)); });
  port_.CloseInput();
  sender.join();
}

TEST_F(SerialPortTest, LoopbackShowsADriverThatThisIsA16550) {
  port_.Write(4, 0x1A);
  EXPECT_EQ(port_.Read(6) & 0xF0, 0x90);
  port_.Write(0, 'l');
  EXPECT_EQ(port_.Read(0), 'l');
  EXPECT_EQ(sent_, "");
}

TEST(PowerControl, OnlySleepTypeFivePowersOff) {
  int power_offs = 0;
  PowerControl power([&] { ++power_offs; });
  power.Write(5, 0x20 | 3 << 2);
  EXPECT_EQ(power_offs, 0);
  power.Write(5, 5 << 2);
  EXPECT_EQ(power_offs, 0);
  EXPECT_EQ(power.Read(5), 5 << 2);
  power.Write(5, 0x20 | 5 << 2);
  EXPECT_EQ(power_offs, 1);
}

TEST(KeyboardController, OnlyTheResetCommandResets) {
  int resets = 0;
  KeyboardController keyboard([&] { ++resets; });
  keyboard.Write(0, 0x60);
  EXPECT_EQ(resets, 0);
  EXPECT_EQ(keyboard.Read(0) & 2, 0);
  keyboard.Write(0, 0xFE);
  EXPECT_EQ(resets, 1);
}

TEST(RealTimeClock, IsNeverInTheMiddleOfAnUpdate) {
  RealTimeClock clock;
  clock.Write(0, 0x0A);
  EXPECT_EQ(clock.Read(1) & 0x80, 0);
  clock.Write(0, 0x32);
  EXPECT_EQ(clock.Read(1), 0x20);
}

TEST(RealTimeClock, TellsTheTimeOfTheHostInUtc) {
  RealTimeClock clock;
  const auto read = [&](std::uint8_t index) {
    clock.Write(0, index);
    const int digits = clock.Read(1);
    return digits / 16 * 10 + digits % 16;
  };
  const auto all = [&] {
    return std::array{read(0x32) * 100 + read(0x09),
                      read(0x08),
                      read(0x07),
                      read(0x04),
                      read(0x02),
                      read(0x00),
                      read(0x06)};
  };
  const auto host = [] {
    const std::time_t now = std::time(nullptr);
    std::tm time{};
    gmtime_r(&now, &time);
    return std::array{time.tm_year + 1900, time.tm_mon + 1, time.tm_mday,    time.tm_hour,
                      time.tm_min,         time.tm_sec,     time.tm_wday + 1};
  };
  // Read within one second, as a guest makes sure, too.
  auto before = host();
  auto seen = all();
  while (before != host()) {
    before = host();
    seen = all();
  }
  EXPECT_EQ(seen, before);
}

TEST(PortBus, WhereNothingIsReadsGiveOnes) {
  PortBus bus;
  RealTimeClock clock;
  bus.Add(RealTimeClock::kFirstPort, RealTimeClock::kPortCount, clock);
  std::array<std::byte, 4> bytes{};
  bus.Read(0xCFC, bytes);
  EXPECT_EQ(bytes,
            (std::array{std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}}));
  bus.Write(0x70, std::array{std::byte{0x0B}});
  bus.Read(0x71, std::span(bytes).first(1));
  EXPECT_EQ(bytes[0], std::byte{0x02});
}

TEST(Acpi, EveryTableThatTheRootNamesAddsUpToZero) {
  const auto memory = GuestMemory::Create(kMinimumMemoryBytes);
  ASSERT_TRUE(memory);
  AcpiTable extra("SSDT", 2);
  const AcpiBytes bus_table = extra.Finish();
  const auto root = PutAcpiTables(*memory, 64, bus_table);
  ASSERT_TRUE(root) << root.error();
  const auto field = [&](std::uint64_t address, auto value) {
    std::memcpy(&value, memory->At(address, sizeof(value)).data(), sizeof(value));
    return value;
  };
  EXPECT_EQ(AcpiChecksum(memory->At(*root, 20)), std::byte{0});
  EXPECT_EQ(AcpiChecksum(memory->At(*root, 36)), std::byte{0});
  std::vector<std::uint64_t> tables = {field(*root + 24, std::uint64_t{})};
  const std::uint32_t root_bytes = field(tables[0] + 4, std::uint32_t{});
  for (std::uint32_t offset = 36; offset < root_bytes; offset += 8) {
    tables.push_back(field(tables[0] + offset, std::uint64_t{}));
  }
  ASSERT_EQ(tables.size(), 4u);                               // XSDT, FADT, MADT, SSDT
  tables.push_back(field(tables[1] + 140, std::uint64_t{}));  // DSDT
  for (const std::uint64_t table : tables) {
    EXPECT_EQ(AcpiChecksum(memory->At(table, field(table + 4, std::uint32_t{}))), std::byte{0});
  }

  const std::vector<std::byte> too_long(kAcpiEnd - kAcpiAddress);
  EXPECT_FALSE(PutAcpiTables(*memory, 1, too_long));
}

}  // namespace
}  // namespace kmcl::vmm
