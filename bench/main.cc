// kmcl_bench: measures kmcl and its peers in one run. script/bench calls it, and makes tables and
// plots of what it writes: one JSON object a line, for each cell.
//
//   kmcl_bench --list [--quick] [--only REGEX]
//     prints the rows, and those that are not there, with the reason
//   kmcl_bench --output FILE [--quick] [--only REGEX] [--repetitions N] [--milliseconds N]
//              [--at-most SECONDS]
//     goes on with a FILE that is there: a row gets the cells it lacks
//
// Exit status: 0 all is measured, 3 the time was up before, 77 this machine cannot measure (one
// CPU), 130 it was told to end (SIGINT, SIGTERM, SIGHUP), 2 usage.
#include <sys/utsname.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <iterator>
#include <regex>

#include "runner.h"

namespace {

using namespace kmcl::bench;

struct Options {
  bool list = false;
  bool quick = false;
  std::string only;
  std::string output;
  Schedule schedule;
};

int Usage() {
  std::fprintf(stderr,
               "usage: kmcl_bench --list | --output FILE [--quick] [--only REGEX]\n"
               "                  [--repetitions N] [--milliseconds N] [--at-most SECONDS]\n");
  return 2;
}

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--list") {
      options.list = true;
      continue;
    }
    if (name == "--quick") {
      options.quick = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* const value = argv[++i];
    if (name == "--only") {
      options.only = value;
    } else if (name == "--output") {
      options.output = value;
    } else if (name == "--repetitions") {
      options.schedule.repetitions = std::atoi(value);
    } else if (name == "--milliseconds") {
      options.schedule.milliseconds = std::atof(value);
    } else if (name == "--at-most") {
      options.schedule.at_most_seconds = std::atof(value);
    } else {
      return false;
    }
  }
  return (options.list || !options.output.empty()) && options.schedule.repetitions > 0 &&
         options.schedule.milliseconds > 0;
}

Registry AllRows() {
  Registry registry;
  AddCacheLineRows(registry);
  AddBareRows(registry);
  AddRingRows(registry);
  AddKmclRows(registry);
  AddSystemRows(registry);
#ifdef KMCL_BENCH_LINUX_RING
  AddLinuxRingRows(registry);
#else
  registry.absent.push_back({"linux", "the package linux-source-6.1 was not there at build time"});
#endif
#ifdef KMCL_BENCH_BOOST
  AddBoostSpscRows(registry);
#else
  registry.absent.push_back({"boost", "the package libboost-dev was not there at build time"});
#endif
#ifdef KMCL_BENCH_BOOST
  AddBoostQueueRows(registry);
#endif
  AddPosixQueueRows(registry);
#ifdef KMCL_BENCH_ZEROMQ
  AddZeromqRows(registry);
#else
  registry.absent.push_back({"zeromq", "the package libzmq3-dev was not there at build time"});
#endif
#ifdef KMCL_BENCH_NNG
  AddNngRows(registry);
#else
  registry.absent.push_back({"nng", "the package libnng-dev was not there at build time"});
#endif
#ifdef KMCL_BENCH_ICEORYX
  AddIceoryxRows(registry);
#else
  registry.absent.push_back(
      {"iceoryx", "the packages libiceoryx-posh-dev and iceoryx were not there at build time"});
#endif
  AddRawRows(registry);
  AddExternalRows(registry);
  AddChannelRows(registry);
  registry.absent.push_back(
      {"dpdk", "Debian has no source package of its vmbus driver's ring as a file; not measured"});
  return registry;
}

// The accepted cells of each row in a file of an earlier call.
std::map<std::string, int> Accepted(const std::string& path) {
  std::map<std::string, int> accepted;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    constexpr std::string_view kBegin = "{\"row\":\"";
    if (!line.starts_with(kBegin) || line.find("\"accepted\":true") == std::string::npos) continue;
    const std::size_t end = line.find('"', kBegin.size());
    ++accepted[line.substr(kBegin.size(), end - kBegin.size())];
  }
  return accepted;
}

// At its end. A call that was killed may have left half a line, which then is a line of its own.
std::FILE* OpenToGoOn(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "a+");
  if (file == nullptr) return nullptr;
  if (std::fseek(file, -1, SEEK_END) == 0 && std::fgetc(file) != '\n') std::fputc('\n', file);
  std::fseek(file, 0, SEEK_END);
  return file;
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

void WriteHeader(std::FILE* output, const Options& options, const Registry& registry) {
  utsname system;
  uname(&system);
  char when[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  std::fprintf(output,
               "{\"run\":\"%s\",\"cpu\":\"%s\",\"cpus\":%ld,\"kernel\":\"%s\",\"compiler\":\"%s\","
               "\"quick\":%s,\"milliseconds\":%g,\"absent\":[",
               when, Escaped(CpuName()).c_str(), sysconf(_SC_NPROCESSORS_ONLN), system.release,
               Escaped(__VERSION__).c_str(), options.quick ? "true" : "false",
               options.schedule.milliseconds);
  for (std::size_t i = 0; i < registry.absent.size(); ++i) {
    std::fprintf(output, "%s{\"name\":\"%s\",\"why\":\"%s\"}", i == 0 ? "" : ",",
                 Escaped(registry.absent[i].name).c_str(), Escaped(registry.absent[i].why).c_str());
  }
  std::fprintf(output, "]}\n");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) return Usage();
  Registry registry = AllRows();
  const std::regex only(options.only);
  std::erase_if(registry.rows, [&](const Row& row) {
    return (options.quick && !row.quick) || !std::regex_search(row.name, only);
  });
  if (options.list) {
    for (const Row& row : registry.rows) std::printf("%s\n", row.name.c_str());
    for (const Absent& absent : registry.absent) {
      std::printf("absent: %s: %s\n", absent.name.c_str(), absent.why.c_str());
    }
    return 0;
  }
  int near_cpu = 0, far_cpu = 0;
  if (!ChooseCpus(near_cpu, far_cpu)) {
    std::fprintf(stderr, "kmcl_bench: measures between two CPUs, and may use only one here\n");
    return 77;
  }
  WatchSignals();
  auto accepted = Accepted(options.output);
  std::FILE* const output = OpenToGoOn(options.output);
  if (output == nullptr) {
    std::perror(options.output.c_str());
    return 2;
  }
  WriteHeader(output, options, registry);
  switch (Runner(options.schedule, std::move(accepted), output).Run(registry.rows)) {
    case Runner::End::kDone:
      return 0;
    case Runner::End::kTimeUp:
      return 3;
    case Runner::End::kInterrupted:
      return 130;
  }
}
