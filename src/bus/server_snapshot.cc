#include "bus/server_snapshot.h"

#include <algorithm>
#include <array>
#include <concepts>
#include <map>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "bus/server_state.h"
#include "wire/byte_stream.h"
#include "wire/messages.h"

namespace kmcl::bus {
namespace {

namespace channel_state = server::channel_state;
namespace connection_state = server::connection_state;
namespace gpadl_state = server::gpadl_state;

constexpr std::uint32_t kSnapshotVersion = 1;

// Each struct is taken apart by a structured binding: one that gets a field more does not compile
// before it is saved here too.
template <typename A>
void Fields(A& archive, OfferKey& key) {
  auto& [type, instance, index] = key;
  archive(type, instance, index);
}
template <typename A>
void Fields(A& archive, OfferParameters& offer) {
  auto& [key, flags, megabytes, optional_megabytes, user_defined] = offer;
  archive(key, flags, megabytes, optional_megabytes, user_defined);
}
template <typename A>
void Fields(A& archive, wire::OpenChannel& message) {
  auto& [channel, open, ring, vp, page, user_data, connection, event_flag, flags] = message;
  archive(channel, open, ring, vp, page, user_data, connection, event_flag, flags);
}
template <typename A>
void Fields(A& archive, wire::InitiateContact& message) {
  auto& [version, vp, info, up, down, client] = message;
  archive(version, vp, info, up, down, client);
}
template <typename A>
void Fields(A& archive, gpadl_state::Receiving& state) {
  auto& [ranges, expected, bytes] = state;
  archive(ranges, expected, bytes);
}
template <typename A>
void Fields(A& archive, server::Gpadl& gpadl) {
  auto& [pages, state] = gpadl;
  archive(pages, state);
}
template <typename A>
void Fields(A& archive, channel_state::Opening& state) {
  auto& [open, vp] = state;
  archive(open, vp);
}
template <typename A>
void Fields(A& archive, channel_state::Modification& state) {
  auto& [next] = state;
  archive(next);
}
template <typename A>
void Fields(A& archive, channel_state::Open& state) {
  auto& [interrupts, modification] = state;
  archive(interrupts, modification);
}
template <typename A>
void Fields(A& archive, channel_state::ClosingReopen& state) {
  auto& [request] = state;
  archive(request);
}
template <typename A>
void Fields(A& archive, server::Channel& channel) {
  auto& [offer, state, gpadls] = channel;
  archive(offer, state, gpadls);
}
template <typename A>
void Fields(A& archive, connection_state::Pause& state) {
  auto& [held] = state;
  archive(held);
}
template <typename A>
void Fields(A& archive, connection_state::Connected& state) {
  auto& [version, features, requested, pause, monitor_page] = state;
  archive(version, features, requested, pause, monitor_page);
}
template <typename A>
void Fields(A& archive, connection_state::ThenUnloadComplete& state) {
  auto& [answered] = state;
  archive(answered);
}
template <typename A>
void Fields(A& archive, connection_state::ThenContact& state) {
  auto& [request] = state;
  archive(request);
}
template <typename A>
void Fields(A& archive, connection_state::Resetting& state) {
  auto& [next, awaited] = state;
  archive(next, awaited);
}
// States without data.
template <typename A, typename T>
  requires std::is_empty_v<T>
void Fields(A&, T&) {}

class Writer {
 public:
  template <typename... T>
  void operator()(T&... values) {
    (Put(values), ...);
  }
  std::vector<std::byte> Take() { return out_.Take(); }

 private:
  void Put(const bool& value) { out_.PutFlag(value); }
  template <std::unsigned_integral T>
  void Put(const T& value) {
    out_.Put(value);
  }
  template <typename T>
    requires std::is_enum_v<T>
  void Put(const T& value) {
    out_.Put(std::to_underlying(value));
  }
  void Put(const wire::Guid& value) { out_.PutGuid(value); }
  void Put(const wire::FeatureFlags& value) { out_.Put(value.bits()); }
  void Put(const wire::UserDefined& value) { out_.PutBytes(value); }
  void Put(const wire::MessageBytes& value) { out_.PutBlock(value); }
  void Put(const std::vector<std::byte>& value) { out_.PutBlock(value); }
  void Put(const std::vector<wire::MessageBytes>& values) {
    out_.Put(static_cast<std::uint64_t>(values.size()));
    for (const auto& value : values) Put(value);
  }
  template <typename T>
  void Put(std::optional<T>& value) {
    out_.PutFlag(value.has_value());
    if (value) Put(*value);
  }
  template <typename K, typename V>
  void Put(std::map<K, V>& values) {
    out_.Put(static_cast<std::uint64_t>(values.size()));
    for (auto& [key, value] : values) {
      Put(key);
      Put(value);
    }
  }
  template <typename... T>
  void Put(std::variant<T...>& value) {
    out_.Put(static_cast<std::uint8_t>(value.index()));
    std::visit([this](auto& each) { Fields(*this, each); }, value);
  }
  template <typename T>
    requires std::is_class_v<T> && requires(Writer& w, T& t) { Fields(w, t); }
  void Put(T& value) {
    Fields(*this, value);
  }

  wire::ByteWriter out_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : in_(bytes) {}
  template <typename... T>
  void operator()(T&... values) {
    (Get(values), ...);
  }
  bool AtEnd() const { return in_.AtEnd(); }

 private:
  void Get(bool& value) { value = in_.GetFlag(); }
  template <std::unsigned_integral T>
  void Get(T& value) {
    value = in_.Get<T>();
  }
  template <typename T>
    requires std::is_enum_v<T>
  void Get(T& value) {
    value = static_cast<T>(in_.Get<std::underlying_type_t<T>>());
  }
  void Get(wire::Guid& value) { value = in_.GetGuid(); }
  void Get(wire::FeatureFlags& value) { value = wire::FeatureFlags(in_.Get<std::uint32_t>()); }
  void Get(wire::UserDefined& value) {
    const auto bytes = in_.GetBytes(value.size());
    if (bytes.size() == value.size()) std::ranges::copy(bytes, value.begin());
  }
  void Get(wire::MessageBytes& value) {
    auto message = wire::MessageBytes::Of(in_.GetBlock());
    if (!message) return in_.Fail();
    value = *message;
  }
  void Get(std::vector<std::byte>& value) {
    const auto bytes = in_.GetBlock();
    value.assign(bytes.begin(), bytes.end());
  }
  void Get(std::vector<wire::MessageBytes>& values) {
    const auto count = in_.Get<std::uint64_t>();
    for (std::uint64_t i = 0; i < count && in_.ok(); ++i) Get(values.emplace_back());
  }
  template <typename T>
  void Get(std::optional<T>& value) {
    if (in_.GetFlag()) Get(value.emplace());
  }
  template <typename K, typename V>
  void Get(std::map<K, V>& values) {
    const auto count = in_.Get<std::uint64_t>();
    for (std::uint64_t i = 0; i < count && in_.ok(); ++i) {
      K key{};
      V value{};
      Get(key);
      Get(value);
      if (!values.emplace(key, std::move(value)).second) in_.Fail();
    }
  }
  template <typename... T>
  void Get(std::variant<T...>& value) {
    const auto index = in_.Get<std::uint8_t>();
    std::size_t at = 0;
    bool found = false;
    const auto take = [&]<typename State>(std::type_identity<State>) {
      if (at++ != index) return;
      found = true;
      Fields(*this, value.template emplace<State>());
    };
    (take(std::type_identity<T>{}), ...);
    if (!found) in_.Fail();
  }
  template <typename T>
    requires std::is_class_v<T> && requires(Reader& r, T& t) { Fields(r, t); }
  void Get(T& value) {
    Fields(*this, value);
  }

  wire::ByteReader in_;
};

}  // namespace

template <typename Archive, typename Machine>
void ServerSnapshot::Fields(Archive& archive, Machine& server) {
  archive(server.connection_, server.channels_, server.incomplete_, server.gpadl_pages_,
          server.gpadl_count_, server.refusals_);
}

std::vector<std::byte> ServerSnapshot::Save(const Server& server) {
  Server copy = server;  // the archives name fields in one way for both directions
  Writer writer;
  std::uint32_t version = kSnapshotVersion;
  writer(version);
  Fields(writer, copy);
  return writer.Take();
}

Result<Server> ServerSnapshot::Restore(std::span<const std::byte> bytes,
                                       const ServerLimits& limits) {
  Reader reader(bytes);
  std::uint32_t version = 0;
  reader(version);
  if (version != kSnapshotVersion) return std::unexpected(Error::kSaveVersion);
  Server server(limits);
  Fields(reader, server);
  if (!reader.AtEnd() || server.BrokenInvariant()) return std::unexpected(Error::kSaveMalformed);
  if (const auto* connected = std::get_if<connection_state::Connected>(&server.connection_);
      connected != nullptr && !wire::IsKnown(connected->version)) {
    return std::unexpected(Error::kSaveMalformed);
  }
  return server;
}

}  // namespace kmcl::bus
