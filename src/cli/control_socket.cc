#include "cli/control_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace kmcl::cli {
namespace {

constexpr std::size_t kMostRequestBytes = std::size_t{64} * 1024;
constexpr std::size_t kMostClients = 16;

Failure CannotListen(const std::string& path) {
  return {kExitFailure,
          fmt::format("cannot listen at {}: {}", path, std::generic_category().message(errno))};
}

}  // namespace

ControlSocket::Client::Client(OwnedDescriptor socket)
    : connection(std::move(socket), kMostRequestBytes) {}

Outcome<std::unique_ptr<ControlSocket>> ControlSocket::Listen(const std::string& path,
                                                              Answer answer) {
  const auto address = SocketAddressOf(path);
  if (!address) {
    return Fail(kExitUsage, fmt::format("\"{}\" is empty or too long for a socket", path));
  }
  const auto* const generic = reinterpret_cast<const sockaddr*>(&*address);
  const OwnedDescriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (probe.get() < 0) return std::unexpected(CannotListen(path));
  if (connect(probe.get(), generic, sizeof(*address)) == 0) {
    return Fail(kExitFailure, fmt::format("another machine is controlled at {}", path));
  }
  if (errno == ECONNREFUSED) {
    struct stat about{};
    if (lstat(path.c_str(), &about) == 0 && S_ISSOCK(about.st_mode)) {
      unlink(path.c_str());
    }
  }
  OwnedDescriptor listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // The mode of the socket becomes that of its file, without a moment in which it is another.
  if (listener.get() < 0 || fchmod(listener.get(), 0600) != 0 ||
      bind(listener.get(), generic, sizeof(*address)) != 0) {
    return std::unexpected(CannotListen(path));
  }
  if (listen(listener.get(), 16) != 0) {
    const Failure failure = CannotListen(path);
    unlink(path.c_str());
    return std::unexpected(failure);
  }
  std::unique_ptr<ControlSocket> made(
      new ControlSocket(path, std::move(listener), std::move(answer)));
  made->accepting_ = std::thread(&ControlSocket::Accept, made.get());
  return made;
}

ControlSocket::ControlSocket(std::string path, OwnedDescriptor listener, Answer answer)
    : path_(std::move(path)), listener_(std::move(listener)), answer_(std::move(answer)) {}

ControlSocket::~ControlSocket() {
  Close();
  accepting_.join();
  Reap(true);
  unlink(path_.c_str());
}

void ControlSocket::Close() {
  const std::lock_guard lock(mutex_);
  closing_ = true;
  shutdown(listener_.get(), SHUT_RDWR);
  for (const Client& client : clients_) {
    client.connection.Abort();
  }
}

void ControlSocket::Accept() {
  for (;;) {
    OwnedDescriptor socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int why = errno;
    Reap(false);
    const std::lock_guard lock(mutex_);
    if (closing_) {
      return;
    }
    if (socket.get() < 0) {
      if (why == EINTR || why == ECONNABORTED) {
        continue;
      }
      PrintError(
          fmt::format("the control socket ends: {}\n", std::generic_category().message(why)));
      return;
    }
    if (clients_.size() < kMostClients) {
      Client& client = clients_.emplace_back(std::move(socket));
      client.thread = std::thread(&ControlSocket::Serve, this, std::ref(client));
    }
  }
}

void ControlSocket::Serve(Client& client) {
  while (auto line = client.connection.Read()) {
    const Request request{.json = Json::parse(line->text, nullptr, false),
                          .descriptor = line->descriptor.get(),
                          .await_client_done = [&client](int stop) {
                            return client.connection.AwaitOtherEndDone(stop);
                          }};
    const Json answer = request.json.is_object()
                            ? answer_(request)
                            : Json{{"ok", false}, {"error", "a request is one JSON object"}};
    if (!client.connection.Write(answer.dump(-1, ' ', false, Json::error_handler_t::replace))) {
      break;
    }
  }
  client.connection.Abort();
  const std::lock_guard lock(mutex_);
  client.done = true;
}

// Joins the threads of connections that have ended, or of all.
void ControlSocket::Reap(bool all) {
  std::list<Client> ended;
  {
    const std::lock_guard lock(mutex_);
    for (auto client = clients_.begin(); client != clients_.end();) {
      const auto next = std::next(client);
      if (all || client->done) {
        ended.splice(ended.end(), clients_, client);
      }
      client = next;
    }
  }
  for (Client& client : ended) {
    client.thread.join();
  }
}

}  // namespace kmcl::cli
