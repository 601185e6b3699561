#include "driver.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <sstream>
#include <utility>

namespace kmcl::contract {

namespace {

Words Split(const std::string& line) {
  std::istringstream stream(line);
  Words words;
  for (std::string word; stream >> word;) {
    words.push_back(word);
  }
  return words;
}

std::string Join(const Words& words, std::size_t first) {
  std::string line;
  for (std::size_t i = first; i < words.size(); ++i) {
    line += (i == first ? "" : " ") + words[i];
  }
  return line;
}

KMCL_ENDPOINT_OPTIONS OptionsOf(const Words& words, std::size_t first) {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  for (std::size_t i = first; i + 1 < words.size(); i += 2) {
    const auto value = std::stoul(words[i + 1]);
    if (words[i] == "threads") {
      options.DispatchThreads = static_cast<ULONG>(value);
    } else if (words[i] == "spin") {
      options.SpinMicroseconds = static_cast<ULONG>(value);
    } else if (words[i] == "version") {
      options.MaximumVersion = static_cast<ULONG>(value);
    } else if (words[i] == "monitors") {
      options.NoMonitors = value == 0 ? TRUE : FALSE;
    }
  }
  return options;
}

}  // namespace

const std::map<std::string, Driver::Verb>& Driver::Verbs() {
  static const std::map<std::string, Verb> verbs = {
      {"serve", &Driver::Serve},            // ADDRESS [threads N] [spin N] -> status
      {"connect", &Driver::Connect},        // ADDRESS [threads N] [spin N] -> status client
      {"arrived", &Driver::WaitPartition},  // COUNT -> ok
      {"gone", &Driver::WaitGone},          // COUNT -> ok
      {"end-server", &Driver::EndServer},   // -> ok
      {"end-client", &Driver::EndClient},   // CLIENT -> ok
      {"offers", &Driver::Offers},          // CLIENT -> type.instance:inuse ...
      {"tid", &Driver::Thread},             // -> the thread that does the lines
      {"connected", &Driver::Connected},    // CLIENT -> 0 or 1
      {"allocate", &Driver::Allocate},      // server | client ENDPOINT -> status channel
      {"init", &Driver::Init},              // CHANNEL WHAT VALUES -> status
      {"enable", &Driver::Enable},          // CHANNEL -> status
      {"disable", &Driver::Disable},        // CHANNEL -> ok
      {"start", &Driver::Start},            // CHANNEL -> ok
      {"pause", &Driver::Pause},            // CHANNEL -> ok
      {"cleanup", &Driver::Cleanup},        // CHANNEL -> ok
      {"set", &Driver::Set},                // CHANNEL WHAT VALUE -> ok
      {"get", &Driver::Get},                // CHANNEL WHAT -> values
      {"save", &Driver::Save},              // CHANNEL BYTES -> status save bytes
      {"save-begin", &Driver::SaveBegin},   // CHANNEL -> status
      {"save-continue", &Driver::SaveContinue},  // CHANNEL BYTES -> status filled required
      {"save-end", &Driver::SaveEnd},       // CHANNEL -> ok
      {"restore", &Driver::Restore},        // CHANNEL SAVE [BYTES [FROM]] -> status
      {"damage", &Driver::Damage},          // SAVE OFFSET -> ok
      {"packet", &Driver::Packet},          // CHANNEL allocate|initialize -> packet
      {"send", &Driver::Send},              // PACKET NUMBER BYTES FLAGS -> status
      {"post", &Driver::Post},              // CHANNEL NUMBER BYTES FLAGS -> status
      {"plain", &Driver::Plain},            // CHANNEL NUMBER BYTES -> status; the default routine
      {"describe", &Driver::DescribeMemory},  // see driver_external.cc
      {"sync", &Driver::Synchronous},  // CHANNEL NUMBER BYTES FLAGS TIMEOUT CAPACITY -> status size
      {"complete", &Driver::Complete},  // CHANNEL NUMBER|all -> ok
      {"fail", &Driver::Fail},          // CHANNEL NUMBER -> ok
      {"raw", &Driver::Raw},            // CHANNEL WHAT VALUES -> status, and what was found
      {"memory", &Driver::Memory},      // CHANNEL VERB ...; see driver_buffers.h
      {"events", &Driver::Events},      // CHANNEL -> name|detail;...
      {"wait", &Driver::Wait},          // CHANNEL COUNT EVENT -> ok
      {"gate", &Driver::Gate},          // CHANNEL EVENT -> ok
      {"release", &Driver::Release},    // CHANNEL EVENT -> ok
      {"on", &Driver::On},              // CHANNEL EVENT WORDS then LINE -> ok
      {"async", &Driver::Async},        // VERB CHANNEL ... -> ok; event "returned VERB ANSWER"
      {"relax", &Driver::Relax},        // -> ok; opens all gates, completes all packets
      {"finish", &Driver::Finish},      // -> ok
  };
  return verbs;
}

std::string Driver::Do(const std::string& line) {
  const Words words = Split(line);
  const auto found = words.empty() ? Verbs().end() : Verbs().find(words[0]);
  return found == Verbs().end() ? "unknown " + line : (this->*found->second)(words);
}

Driver::~Driver() {
  FinishChannels();
  for (const auto& [id, client] : std::exchange(clients_, {})) {
    KmclClientDestroy(client);
  }
  KmclServerDestroy(server_);
}

DriverChannel* Driver::Find(const std::string& id) {
  const std::lock_guard lock(mutex_);
  return channels_.at(std::stoul(id)).get();
}

HANDLE Driver::Partition(std::size_t number) {
  const std::lock_guard lock(mutex_);
  return partitions_.at(number - 1);
}

VOID Driver::PartitionArrived(PVOID context, KMCL_SERVER, HANDLE partition) {
  auto* const self = static_cast<Driver*>(context);
  {
    const std::lock_guard lock(self->mutex_);
    self->partitions_.push_back(partition);
  }
  self->recorder_.Record("arrived");
}

VOID Driver::PartitionGone(PVOID context, KMCL_SERVER, HANDLE) {
  static_cast<Driver*>(context)->recorder_.Record("gone");
}

std::string Driver::Serve(const Words& words) {
  KMCL_ENDPOINT_OPTIONS options = OptionsOf(words, 2);
  options.Context = this;
  options.PartitionArrived = PartitionArrived;
  options.PartitionGone = PartitionGone;
  return std::to_string(KmclServerCreate(words.at(1).c_str(), &options, &server_));
}

std::string Driver::Connect(const Words& words) {
  const KMCL_ENDPOINT_OPTIONS options = OptionsOf(words, 2);
  KMCL_CLIENT client = nullptr;
  const NTSTATUS status = KmclClientConnect(words.at(1).c_str(), &options, &client);
  const std::lock_guard lock(mutex_);
  const int id = next_id_++;
  if (NT_SUCCESS(status)) {
    clients_[id] = client;
  }
  return std::to_string(status) + " " + std::to_string(id);
}

std::string Driver::WaitPartition(const Words& words) {
  return recorder_.Wait("arrived", std::stoi(words.at(1))) ? "ok" : "timeout";
}

std::string Driver::WaitGone(const Words& words) {
  return recorder_.Wait("gone", std::stoi(words.at(1))) ? "ok" : "timeout";
}

std::string Driver::EndServer(const Words&) {
  KmclServerDestroy(std::exchange(server_, nullptr));
  return "ok";
}

std::string Driver::EndClient(const Words& words) {
  KMCL_CLIENT client = nullptr;
  {
    const std::lock_guard lock(mutex_);
    client = std::exchange(clients_.at(std::stoi(words.at(1))), nullptr);
  }
  KmclClientDestroy(client);
  return "ok";
}

std::string Driver::Offers(const Words& words) {
  std::vector<KMCL_OFFER> offers(64);
  ULONG count = 0;
  const NTSTATUS status = KmclClientQueryOffers(clients_.at(std::stoi(words.at(1))), offers.data(),
                                                static_cast<ULONG>(offers.size()), &count);
  std::string text = std::to_string(status);
  for (ULONG i = 0; i < count && i < offers.size(); ++i) {
    text += " " + std::to_string(offers[i].InterfaceType.Data1) + "." +
            std::to_string(offers[i].InterfaceInstance.Data1) +
            (offers[i].InUse ? ":used" : ":free");
  }
  return text;
}

std::string Driver::Thread(const Words&) { return std::to_string(syscall(SYS_gettid)); }

std::string Driver::Connected(const Words& words) {
  return KmclClientIsConnected(clients_.at(std::stoi(words.at(1)))) ? "1" : "0";
}

std::string Driver::Memory(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  std::string answer = buffers_.Do(channel->handle(), Words(words.begin() + 2, words.end()));
  // Before the channel's next event. Where the other end is a process of its own, that process alone
  // orders the two, and the thread sanitizer cannot see it.
  (void)channel->recorder().Events();
  return answer;
}

std::string Driver::Events(const Words& words) {
  std::string text;
  for (const Event& event : Find(words.at(1))->recorder().Events()) {
    text += (text.empty() ? "" : ";") + event.name + "|" + event.detail;
  }
  return text;
}

std::string Driver::Wait(const Words& words) {
  Recorder& recorder = Find(words.at(1))->recorder();
  return recorder.Wait(Join(words, 3), std::stoi(words.at(2))) ? "ok" : "timeout";
}

std::string Driver::Gate(const Words& words) {
  Find(words.at(1))->recorder().Gate(Join(words, 2));
  return "ok";
}

std::string Driver::Release(const Words& words) {
  Find(words.at(1))->recorder().Release(Join(words, 2));
  return "ok";
}

std::string Driver::On(const Words& words) {
  std::size_t then = 2;
  std::string name;
  for (; words.at(then) != "then"; ++then) {
    name += (name.empty() ? "" : " ") + words[then];
  }
  const std::string line = Join(words, then + 1);
  Recorder& recorder = Find(words.at(1))->recorder();
  recorder.On(name,
              [this, &recorder, line] { recorder.Record("did " + line + " -> " + Do(line)); });
  return "ok";
}

std::string Driver::Async(const Words& words) {
  const std::string line = Join(words, 1);
  const std::string verb = words.at(1);
  DriverChannel* const channel = Find(words.at(2));
  const std::lock_guard lock(mutex_);
  async_.emplace_back([this, line, verb, channel] {
    const std::string answer = Do(line);
    channel->recorder().Record("returned " + verb + " " + answer);
  });
  return "ok";
}

void Driver::JoinAsync() {
  std::vector<std::thread> running;
  {
    const std::lock_guard lock(mutex_);
    running.swap(async_);
  }
  for (std::thread& thread : running) {
    thread.join();
  }
}

void Driver::RelaxChannels() {
  for (const auto& channel : channels_) {
    channel->recorder().ReleaseAll();
    channel->CompleteAll();
  }
}

void Driver::FinishChannels() {
  RelaxChannels();
  for (const auto& channel : channels_) {
    if (channel->handle() != nullptr) {
      VmbChannelDisable(channel->handle());
    }
  }
  JoinAsync();
  for (auto& [id, packet] : packets_) {
    if (packet->memory == nullptr) {
      VmbPacketFree(packet->handle);
    }
  }
  packets_.clear();
  for (const auto& channel : channels_) {
    if (channel->handle() != nullptr) {
      VmbChannelCleanup(channel->handle());
      channel->set_handle(nullptr);
    }
  }
}

std::string Driver::Relax(const Words&) {
  RelaxChannels();
  return "ok";
}

std::string Driver::Finish(const Words&) {
  FinishChannels();
  return "ok";
}

}  // namespace kmcl::contract
