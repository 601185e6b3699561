// Sends one request over a bus and prints the answer.
//
//   KMCL_BUS=unix:/tmp/bus echo_client_cpp [TEXT]
//
// Needs examples/echo_server.c or .cpp at the other end. The same in C: examples/echo_client.c.
#include <cstdio>
#include <cstdlib>
#include <future>
#include <kmcl/kmcl.hpp>
#include <string>
#include <string_view>

namespace {

constexpr GUID kEchoType = {
    0x5c0b0a52, 0x2f6e, 0x4c63, {0x9a, 0x0e, 0x31, 0x7d, 0x58, 0xc4, 0x6b, 0x17}};

using Answer = kmcl::Expected<std::vector<std::byte>>;

// Goes on in the completion routine, on one of the library's threads.
kmcl::Detached Ask(kmcl::ChannelView channel, std::string_view text, std::promise<Answer>& answer) {
  answer.set_value(co_await channel.Request(kmcl::BytesOf(text)));
}

int Fail(kmcl::Status status) {
  std::fprintf(stderr, "echo_client: %s\n", status.name());
  return EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string text = argc > 1 ? argv[1] : "Hello over VMBus.";
  std::promise<Answer> promise;  // outlives the channel, and so the coroutine
  auto client = kmcl::Client::Connect();
  if (!client) return Fail(client.error());
  auto channel = client->Open({.interface_type = kEchoType});
  if (!channel) return Fail(channel.error());
  Ask(*channel, text, promise);
  const Answer answer = promise.get_future().get();
  if (!answer) return Fail(answer.error());
  std::printf("%.*s\n", static_cast<int>(text.size()),
              reinterpret_cast<const char*>(answer->data()));
  return EXIT_SUCCESS;
}
