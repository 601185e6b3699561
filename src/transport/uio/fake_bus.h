// A folder that looks like the kernel's file systems, for tests.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "transport/uio/kernel_bus.h"

namespace kmcl::transport::uio {

class FakeBus {
 public:
  FakeBus() {
    std::string name = (std::filesystem::temp_directory_path() / "uio-XXXXXX").string();
    root_ = mkdtemp(name.data());
    std::filesystem::create_directories(Bus() / "devices");
    std::filesystem::create_directories(Bus() / "drivers" / kUioDriver);
    for (const char* file : {"bind", "unbind"}) Write(Bus() / "drivers" / kUioDriver / file, "");
    Write(Bus() / "drivers_probe", "");
  }
  ~FakeBus() { std::filesystem::remove_all(root_); }

  Places places() const {
    return {.sysfs = (root_ / "sys").string(), .dev = (root_ / "dev").string()};
  }
  KernelBus bus() const { return KernelBus(places()); }
  std::filesystem::path Bus() const { return root_ / "sys/bus/vmbus"; }
  std::filesystem::path Device(const wire::Guid& instance) const {
    return Bus() / "devices" / wire::ToString(instance);
  }

  static void Write(const std::filesystem::path& file, const std::string& text) {
    std::ofstream(file) << text;
  }
  static std::string Read(const std::filesystem::path& file) {
    std::string text;
    std::getline(std::ifstream(file), text);
    return text;
  }

  // As Linux 6.1 shows a device without a driver.
  void AddDevice(const wire::Guid& type, const wire::Guid& instance, std::uint32_t id) const {
    const auto folder = Device(instance);
    std::filesystem::create_directories(folder / "channels" / std::to_string(id));
    Write(folder / "class_id", "{" + wire::ToString(type) + "}\n");
    Write(folder / "device_id", "{" + wire::ToString(instance) + "}\n");
    Write(folder / "id", std::to_string(id) + "\n");
    Write(folder / "state", "2\n");
    Write(folder / "driver_override", "(null)\n");
    Write(folder / "channels" / std::to_string(id) / "subchannel_id", "0\n");
    Write(folder / "channels" / std::to_string(id) / "interrupts", "7\n");
    Write(folder / "channels" / std::to_string(id) / "events", "3\n");
  }
  void AddSubchannel(const wire::Guid& instance, std::uint32_t id, std::uint16_t index) const {
    const auto folder = Device(instance) / "channels" / std::to_string(id);
    std::filesystem::create_directories(folder);
    Write(folder / "subchannel_id", std::to_string(index) + "\n");
    Write(folder / "ring", "");
  }
  // As if `driver` had the device.
  void SetDriver(const wire::Guid& instance, const std::string& driver) const {
    std::filesystem::create_directories(Bus() / "drivers" / driver);
    std::filesystem::create_directory_symlink("../../drivers/" + driver,
                                              Device(instance) / "driver");
  }
  void SetUio(const wire::Guid& instance, std::uint32_t number,
              const std::string& ring_bytes) const {
    SetDriver(instance, kUioDriver);
    const std::string name = "uio" + std::to_string(number);
    std::filesystem::create_directories(Device(instance) / "uio" / name);
    const char* const names[] = {"txrx_rings", "int_page", "monitor_page"};
    for (int map = 0; map < 3; ++map) {
      const auto folder = root_ / "sys/class/uio" / name / "maps" / ("map" + std::to_string(map));
      std::filesystem::create_directories(folder);
      Write(folder / "name", std::string(names[map]) + "\n");
      Write(folder / "size", map == 0 ? ring_bytes + "\n" : "0x0000000000001000\n");
    }
  }

 private:
  std::filesystem::path root_;
};

inline constexpr wire::Guid kEchoType{
    0x799d7bf1, 0xe70d, 0x4e71, {0x98, 0x5d, 0x6d, 0x8b, 0x3a, 0xcf, 0xb1, 0x75}};
inline constexpr wire::Guid kEcho{
    0x81bd0cb9, 0xddac, 0x4475, {0xb7, 0xc5, 0x88, 0x00, 0x03, 0xaa, 0xb6, 0x06}};
inline constexpr wire::Guid kOther{
    0x12345678, 0x9abc, 0x4def, {0x80, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77}};

}  // namespace kmcl::transport::uio
