// Tells how far a copy is: to people as a bar that is redrawn on standard error, to scripts as
// lines on a descriptor of their choice.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace kmcl::cli {

class ProgressBar {
 public:
  // `shown`: draw the bar. `lines_descriptor`: -1, or where "progress DONE TOTAL" is written each
  // time another hundredth is done, and at the end.
  ProgressBar(std::string label, std::uint64_t total_bytes, bool shown, int lines_descriptor);
  ~ProgressBar();  // leaves the line clean for what is printed next
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Cheap when there is nothing new to tell.
  void Update(std::uint64_t done_bytes);
  // Nothing was answered for a while, and `in_flight` transactions wait. Told once, until the next
  // Update that has something new.
  void Stalled(std::uint64_t in_flight);

 private:
  void Draw(std::uint64_t done_bytes, std::chrono::steady_clock::time_point now);

  const std::string label_;
  const std::uint64_t total_bytes_;
  const bool shown_;
  const int lines_descriptor_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
  std::uint64_t hundredths_told_ = 0;
  std::uint64_t last_done_ = 0;
  bool stall_told_ = false;
  bool anything_drawn_ = false;
};

// Whether a bar is wanted when the user did not say: standard error is a terminal.
bool ProgressByDefault();

}  // namespace kmcl::cli
