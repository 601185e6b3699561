// Marks that this thread runs a callback of some channel, where blocking calls are forbidden.
#pragma once

namespace kmcl::channel {

inline thread_local constinit int callback_depth = 0;

struct CallbackScope {
  CallbackScope() { ++callback_depth; }
  ~CallbackScope() { --callback_depth; }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;
};

}  // namespace kmcl::channel
