// Serves a bus with one echo channel for each client: every request is answered with its own bytes.
//
//   KMCL_BUS=unix:/tmp/bus echo_server_cpp
//
// Prints "serving" once clients may connect; ends on Ctrl-C or SIGTERM. The same in C:
// examples/echo_server.c.
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <kmcl/kmcl.hpp>

namespace {

// The protocol, and the one device that speaks it.
constexpr GUID kEchoType = {
    0x5c0b0a52, 0x2f6e, 0x4c63, {0x9a, 0x0e, 0x31, 0x7d, 0x58, 0xc4, 0x6b, 0x17}};
constexpr GUID kEchoInstance = {
    0xe21f4d08, 0x7a95, 0x4b1c, {0x83, 0xd6, 0x0f, 0x62, 0xbe, 0x29, 0x94, 0x50}};

// A client has connected: the channel that it is offered lives until it leaves.
std::shared_ptr<void> OfferEcho(kmcl::Partition partition) {
  auto channel = partition.Offer({
      .interface_type = kEchoType,
      .interface_instance = kEchoInstance,
      .on_packet = [](kmcl::ChannelView, kmcl::Incoming packet) { packet.Complete(packet.data()); },
  });
  if (!channel) {
    std::fprintf(stderr, "echo_server: %s\n", channel.error().name());
    return nullptr;
  }
  return std::make_shared<kmcl::Channel>(std::move(*channel));
}

}  // namespace

int main() {
  // Blocked before there are threads, so that only sigwait below takes them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto server = kmcl::Server::Create({.on_arrived = OfferEcho});
  if (!server) {
    std::fprintf(stderr, "echo_server: %s\n", server.error().name());
    return EXIT_FAILURE;
  }
  std::puts("serving");
  std::fflush(stdout);
  int caught = 0;
  sigwait(&signals, &caught);
  return EXIT_SUCCESS;
}
