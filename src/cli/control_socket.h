// The control socket of a running `vmbus vm`: a Unix socket that only its owner may open, and an
// answer for each line that comes (control_connection.h). Connections are served side by side, so a
// request that waits for the guest holds up nobody else.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "cli/control_connection.h"
#include "cli/outcome.h"
#include "cli/output.h"

namespace kmcl::cli {

class ControlSocket {
 public:
  struct Request {
    Json json;            // an object
    int descriptor = -1;  // came with it; open until the return
    // Waits until the client has gone, or has said that it will ask no more: true, it may have lost
    // interest. False when the descriptor `stop` was readable first. Any thread, until the return.
    std::function<bool(int stop)> await_client_done;
  };
  // Answers a request. Called on a thread of the connection's own.
  using Answer = std::function<Json(const Request& request)>;

  // Listens at `path`. A socket there that nobody serves is replaced.
  static Outcome<std::unique_ptr<ControlSocket>> Listen(const std::string& path, Answer answer);
  // Ends every connection and waits for the requests that are being answered, so what they wait for
  // must have been stopped; removes the socket.
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  // Takes no further requests, and ends the connections of those that are not being answered. Any
  // thread.
  void Close();

 private:
  struct Client {
    explicit Client(OwnedDescriptor socket);
    ControlConnection connection;
    std::thread thread;
    bool done = false;  // under mutex_
  };
  ControlSocket(std::string path, OwnedDescriptor listener, Answer answer);
  void Accept();
  void Serve(Client& client);
  void Reap(bool all);

  const std::string path_;
  const OwnedDescriptor listener_;
  const Answer answer_;

  std::mutex mutex_;
  std::list<Client> clients_;  // under mutex_; removed by the accepting thread or the destructor
  bool closing_ = false;       // under mutex_

  std::thread accepting_;
};

}  // namespace kmcl::cli
