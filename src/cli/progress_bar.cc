#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "cli/output.h"

namespace kmcl::cli {
namespace {

constexpr auto kRedrawEvery = std::chrono::milliseconds(100);
constexpr int kBarColumns = 30;

std::string Filled(double fraction) {
  std::string bar;
  const int full = static_cast<int>(fraction * kBarColumns);
  for (int column = 0; column < kBarColumns; ++column) {
    bar += column < full ? "█" : "░";
  }
  return bar;
}

}  // namespace

bool ProgressByDefault() { return isatty(STDERR_FILENO) == 1; }

ProgressBar::ProgressBar(std::string label, std::uint64_t total_bytes, bool shown,
                         int lines_descriptor)
    : label_(std::move(label)),
      total_bytes_(total_bytes),
      shown_(shown),
      lines_descriptor_(lines_descriptor) {}

ProgressBar::~ProgressBar() {
  if (anything_drawn_) {
    PrintError("\n");
  }
}

void ProgressBar::Update(std::uint64_t done_bytes) {
  const bool moved = done_bytes != last_done_;
  last_done_ = done_bytes;
  stall_told_ = stall_told_ && !moved;
  if (lines_descriptor_ >= 0) {
    // In double: the product with 100 of a large file would leave 64 bits.
    const auto hundredths =
        total_bytes_ == 0 ? 100
                          : static_cast<std::uint64_t>(100.0 * static_cast<double>(done_bytes) /
                                                       static_cast<double>(total_bytes_));
    if (hundredths > hundredths_told_) {
      hundredths_told_ = hundredths;
      // A reader that has gone is no reason to stop the copy.
      (void)!dprintf(lines_descriptor_, "progress %llu %llu\n",
                     static_cast<unsigned long long>(done_bytes),
                     static_cast<unsigned long long>(total_bytes_));
    }
  }
  if (shown_) {
    const auto now = std::chrono::steady_clock::now();
    if ((moved && done_bytes == total_bytes_) || now - drawn_ >= kRedrawEvery) {
      Draw(done_bytes, now);
    }
  }
}

void ProgressBar::Stalled(std::uint64_t in_flight) {
  if (lines_descriptor_ >= 0 && !stall_told_) {
    stall_told_ = true;
    (void)!dprintf(lines_descriptor_, "stalled %llu\n", static_cast<unsigned long long>(in_flight));
  }
}

void ProgressBar::Draw(std::uint64_t done_bytes, std::chrono::steady_clock::time_point now) {
  drawn_ = now;
  anything_drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const auto done = static_cast<double>(done_bytes);
  const auto total = static_cast<double>(total_bytes_);
  const double rate = seconds > 0 ? done / seconds : 0;
  const double fraction = total > 0 ? done / total : 1;
  PrintError(fmt::format("\r{} {} {:3.0f} %  {} of {}  {}/s  {} left\x1b[K", label_,
                         Filled(fraction), 100 * fraction, HumanBytes(done), HumanBytes(total),
                         HumanBytes(rate),
                         rate > 0 ? HumanRemaining((total - done) / rate) : "-:--"));
}

}  // namespace kmcl::cli
