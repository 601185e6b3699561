// vmbus generate: a file of pseudo-random bytes, the same ones for the same seed, to try copies
// with.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <span>
#include <system_error>

#include "cli/commands.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"

namespace kmcl::cli {
namespace {

struct GenerateOptions {
  std::string file;
  std::uint64_t bytes = std::uint64_t{1} << 30;
  std::uint64_t seed = 1;
};

// xorshift64*: three shifts and a multiplication for 8 bytes. Not for secrets.
void FillRandom(std::span<std::uint64_t> words, std::uint64_t& state) {
  for (std::uint64_t& word : words) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    word = state * 0x2545f4914f6cdd1du;
  }
}

int RunGenerate(const GenerateOptions& options) {
  const auto fail = [&](const char* what) {
    return ReportFailure("generate", JsonSink{},
                         {kExitFailure, fmt::format("cannot {} {}: {}", what, options.file,
                                                    std::generic_category().message(errno))});
  };
  const int file = open(options.file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) {
    return fail("create");
  }
  std::vector<std::uint64_t> words(std::size_t{128} * 1024);
  std::uint64_t state = std::rotl(options.seed, 32) ^ 0x9e3779b97f4a7c15u;
  state += state == 0 ? 1 : 0;  // the generator never leaves 0
  std::uint64_t left = options.bytes;
  while (left > 0) {
    if (MainWait::Get().interrupted()) {
      close(file);
      unlink(options.file.c_str());
      return kExitInterrupted;
    }
    FillRandom(words, state);
    std::span<const std::byte> rest = std::as_bytes(std::span(words));
    rest = rest.first(static_cast<std::size_t>(std::min<std::uint64_t>(rest.size(), left)));
    left -= rest.size();
    while (!rest.empty()) {
      const ssize_t written = write(file, rest.data(), rest.size());
      if (written < 0 && errno != EINTR) {
        const int exit_code = fail("write");
        close(file);
        return exit_code;
      }
      rest = rest.subspan(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
    }
  }
  if (close(file) != 0) {
    return fail("close");
  }
  return kExitSuccess;
}

}  // namespace

void AddGenerate(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* generate =
      app.add_subcommand("generate", "Write a file of reproducible pseudo-random bytes");
  generate->add_option("FILE", options->file, "Where to write")->required();
  generate->add_option("--bytes", options->bytes, "How many, with an optional unit: 64K, 1G")
      ->capture_default_str()
      ->transform(CLI::AsSizeValue(false));
  generate->add_option("--seed", options->seed, "Another seed, other bytes")->capture_default_str();
  generate->footer("\nExample:\n  vmbus generate /tmp/data --bytes 1G");
  generate->callback([options, &chosen] { chosen = [options] { return RunGenerate(*options); }; });
}

}  // namespace kmcl::cli
