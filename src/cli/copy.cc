// vmbus copy: a file through a channel to the other end's disk.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>

#include "cli/client_channel.h"
#include "cli/commands.h"
#include "cli/counters.h"
#include "cli/file_sender.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/progress_bar.h"

namespace kmcl::cli {
namespace {

struct CopyOptions {
  CommonOptions common;
  std::string file;
  std::string name;
  std::uint32_t window = 32;
  std::uint32_t chunk = 64 * 1024;
  std::uint32_t ring = 1024 * 1024;
  bool progress = false;
  int progress_descriptor = -1;
};

class InputFile {
 public:
  static Outcome<std::unique_ptr<InputFile>> Open(const std::string& path) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
      return Fail(kExitFailure,
                  fmt::format("cannot open {}: {}", path, std::generic_category().message(errno)));
    }
    std::unique_ptr<InputFile> file(new InputFile(descriptor));
    struct stat status {};
    if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
      return Fail(kExitFailure, fmt::format("{} is not a regular file", path));
    }
    file->bytes_ = static_cast<std::uint64_t>(status.st_size);
    return file;
  }
  ~InputFile() { close(descriptor_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  int descriptor() const { return descriptor_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  explicit InputFile(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
  std::uint64_t bytes_ = 0;
};

struct CopyResult {
  std::uint64_t bytes = 0;
  double seconds = 0;
  double lost_at = 0;
  std::uint64_t acknowledged = 0;
  TransactionSums sums;
  KMCL_CHANNEL_COUNTERS counters{};
  std::string sha256_sent;
  std::string sha256_received;
};

// What the other end had accepted and can no longer complete.
std::uint64_t InFlightAtLoss(const CopyResult& result) {
  return result.sums.accepted - result.sums.completed;
}

double Rate(const CopyResult& result) {
  return result.seconds > 0 ? static_cast<double>(result.acknowledged) / result.seconds : 0;
}

// KMCL counts transactions too: the two records must agree.
bool CountersAgree(const CopyResult& result) {
  return result.counters.TransactionsStarted == result.sums.accepted &&
         result.counters.TransactionsCompleted == result.sums.completed &&
         result.counters.TransactionsCancelled == result.sums.cancelled;
}

Json Details(const CopyOptions& options, const CopyResult& result) {
  Json details = {{"bus", options.common.bus},
                  {"file", options.file},
                  {"name", options.name},
                  {"bytes", result.bytes},
                  {"bytes_acknowledged", result.acknowledged},
                  {"chunk", options.chunk},
                  {"window", options.window},
                  {"seconds", result.seconds},
                  {"bytes_per_second", Rate(result)},
                  {"transactions", ToJson(result.sums)},
                  {"counters_agree", CountersAgree(result)},
                  {"counters", ToJson(result.counters)}};
  if (!result.sha256_sent.empty()) {
    details["sha256_sent"] = result.sha256_sent;
    details["sha256_received"] = result.sha256_received;
  }
  if (result.lost_at > 0) {
    details["lost"] = {{"unix_time", result.lost_at}, {"in_flight", InFlightAtLoss(result)}};
  }
  return details;
}

std::string Describe(const CopyOptions& options, const CopyResult& result) {
  std::string text;
  if (!result.sha256_sent.empty()) {
    text += fmt::format("{} stored as {}: {} in {:.2f} s, {}/s\n", options.file, options.name,
                        HumanBytes(static_cast<double>(result.bytes)), result.seconds,
                        HumanBytes(Rate(result)));
    const bool same = result.sha256_sent == result.sha256_received;
    text += fmt::format("SHA-256 sent      {}\nSHA-256 received  {}  {}\n", result.sha256_sent,
                        result.sha256_received, same ? Green("same") : Red("DIFFERENT"));
  } else {
    text += fmt::format("{} of {} were stored before it ended\n",
                        HumanBytes(static_cast<double>(result.acknowledged)),
                        HumanBytes(static_cast<double>(result.bytes)));
  }
  const TransactionSums& sums = result.sums;
  text += fmt::format(
      "{}\n  {} accepted = {} completed + {} ended by an error; {} never ended, {} ended twice\n",
      Bold("transactions"), HumanCount(sums.accepted), HumanCount(sums.completed),
      HumanCount(sums.cancelled), HumanCount(sums.unanswered), HumanCount(sums.twice));
  if (result.lost_at > 0) {
    text += fmt::format("  {} were in flight when the other end was lost\n",
                        HumanCount(InFlightAtLoss(result)));
  }
  return text + Bold("counters") + "\n" + DescribeCounters(result.counters);
}

std::optional<Failure> Judge(const CopyResult& result, const Outcome<SentFile>& sent) {
  if (!result.sums.each_ended_once() || !CountersAgree(result)) {
    return Failure{kExitFailure, "not every transaction ended exactly once"};
  }
  if (!sent) {
    return sent.error();
  }
  if (sent->sent != sent->received) {
    return Failure{kExitFailure, "the file that was stored is not the file that was sent"};
  }
  return std::nullopt;
}

int RunCopy(CopyOptions options) {
  const auto fail = [&](const Failure& failure) {
    return ReportFailure("copy", options.common.json, failure);
  };
  if (options.name.empty()) {
    const std::size_t slash = options.file.rfind('/');
    options.name = slash == std::string::npos ? options.file : options.file.substr(slash + 1);
  }
  if (options.name.size() > devices::kFileMaximumNameBytes) {
    return fail({kExitUsage, "the name is longer than 255 bytes"});
  }
  auto file = InputFile::Open(options.file);
  if (!file) {
    return fail(file.error());
  }
  auto bus = ClientBus::Connect(options.common.bus);
  if (!bus) {
    return fail(bus.error());
  }
  ClientChannelSettings settings;
  settings.interface_type = devices::kFileInterface;
  settings.name = "file";
  settings.maximum_packet_bytes = static_cast<UINT32>(sizeof(devices::FileRequest)) +
                                  std::max(options.chunk, devices::kFileMaximumNameBytes);
  settings.outgoing_pages = options.ring / PAGE_SIZE + 1;
  settings.incoming_pages = 16;  // answers only
  auto channel = ClientChannel::Open(**bus, settings);
  if (!channel) {
    return fail(channel.error());
  }
  SendPlan plan;
  plan.file = (*file)->descriptor();
  plan.file_bytes = (*file)->bytes();
  plan.name = options.name;
  plan.window = options.window;
  plan.chunk_bytes = options.chunk;
  auto sender = FileSender::Prepare(**channel, plan);
  if (!sender) {
    return fail(sender.error());
  }

  CopyResult result;
  result.bytes = plan.file_bytes;
  const auto begin = std::chrono::steady_clock::now();
  const Outcome<SentFile> sent = [&] {
    ProgressBar progress(options.name, plan.file_bytes, options.progress || ProgressByDefault(),
                         options.progress_descriptor);
    auto outcome = (*sender)->Send(progress);
    progress.Update((*sender)->acknowledged_bytes());
    return outcome;
  }();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  (*channel)->Close();

  result.lost_at = (*channel)->lost_at();
  result.acknowledged = (*sender)->acknowledged_bytes();
  result.sums = (*sender)->Sums();
  result.counters = (*channel)->Counters();
  if (sent) {
    result.sha256_sent = devices::HexDigits(sent->sent);
    result.sha256_received = devices::HexDigits(sent->received);
  }
  const Json details = Details(options, result);
  if (options.common.json.text()) {
    Print(Describe(options, result));
  }
  if (const auto failure = Judge(result, sent)) {
    return ReportFailure("copy", options.common.json, *failure, details);
  }
  Json object = {{"command", "copy"}, {"ok", true}};
  object.update(details);
  options.common.json.Emit(object);
  return kExitSuccess;
}

}  // namespace

void AddCopy(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<CopyOptions>();
  CLI::App* copy = app.add_subcommand(
      "copy", "Copy a file through a channel to the server's disk, and compare both ends' SHA-256");
  AddCommonOptions(*copy, options->common);
  copy->add_option("FILE", options->file, "The file to copy")->required();
  copy->add_option("--as", options->name, "Its name at the server (default: the file's own)")
      ->type_name("NAME");
  copy->add_option("--window", options->window, "Chunks that may be on their way at once")
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{1}, std::uint32_t{1024}));
  copy->add_option("--chunk", options->chunk, "Bytes of the file in one packet")
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{512}, devices::kFileMaximumChunkBytes));
  copy->add_option("--ring", options->ring, "Bytes of the outgoing ring")
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{4096}, std::uint32_t{16} << 20));
  copy->add_flag("--progress", options->progress,
                 "Show a progress bar even when standard error is not a terminal");
  copy->add_option("--progress-fd", options->progress_descriptor,
                   "Write \"progress DONE TOTAL\" to this descriptor at each hundredth, and "
                   "\"stalled IN_FLIGHT\" when the server stops answering")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 20));
  copy->footer(
      "\nExample:\n  vmbus copy --bus unix:/tmp/bus backup.tar --as monday.tar\n\n"
      "When the server goes away, copy says so at once, exits with 3, and shows that every\n"
      "transaction on its way was ended by an error, once.");
  copy->callback([options, &chosen] { chosen = [options] { return RunCopy(*options); }; });
}

}  // namespace kmcl::cli
