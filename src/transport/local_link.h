// The local transport: both ends in one process. The same messages, memory and bells as shm, made
// of the same parts; only the way two ends find each other differs, and nobody has to be
// distrusted.
#pragma once

#include <memory>
#include <string>

#include "transport/link.h"

namespace kmcl::transport {

// See Listen and Dial. Names live in this process. DialLocal does not wait for the server: a server
// that refuses ends the link. Any thread.
[[nodiscard]] Result<std::unique_ptr<Listener>> ListenLocal(const std::string& name);
[[nodiscard]] Result<std::unique_ptr<ClientLink>> DialLocal(const std::string& name,
                                                            const DialOptions& options);

}  // namespace kmcl::transport
