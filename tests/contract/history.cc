// The rules that hold for every channel, whatever a scenario did.
#include <algorithm>

#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

class History {
 public:
  void Take(const Event& event) {
    const std::string kind = event.name.substr(0, event.name.find(' '));
    if (kind == "overlap" || kind == "corrupt" || event.name == "gate timed out") {
      ADD_FAILURE() << event.name << " " << event.detail;
    } else if (kind == "Opened") {
      EXPECT_FALSE(open_) << "Opened twice";
      open_ = event.detail.find("answer=0") != std::string::npos;
    } else if (kind == "Closed") {
      EXPECT_TRUE(open_) << "Closed without Opened";
      EXPECT_FALSE(started_) << "Closed without Suspend";
      open_ = false;
    } else if (kind == "Started") {
      EXPECT_TRUE(open_ && !started_) << "Started out of order";
      started_ = true;
    } else if (kind == "PostStarted") {
      EXPECT_TRUE(started_) << "PostStarted without Started";
    } else if (kind == "Suspend") {
      EXPECT_TRUE(started_) << "Suspend without Started";
      started_ = false;
      EXPECT_EQ(BatchesLag(), 0) << "B12: the last batch ends before Suspend";
    } else if (kind == "packet" || kind == "deferred") {
      EXPECT_TRUE(started_) << event.name << " outside of Started and Suspend";
      deliveries_ += kind == "packet" ? 1 : 0;
    } else if (kind == "failed") {
      failed_ = 1;
    } else if (kind == "batch") {
      EndBatch(std::stol(event.name.substr(6)));
    }
  }

  void End() const {
    EXPECT_FALSE(started_) << "Started without Suspend";
    EXPECT_FALSE(open_) << "Opened without Closed";
  }

 private:
  void EndBatch(long count) {
    uses_batches_ = true;
    EXPECT_TRUE(started_) << "batch outside of Started and Suspend";
    EXPECT_GT(count, 0) << "B3";
    // A packet that failed may or may not count.
    EXPECT_TRUE(count == deliveries_ || count == deliveries_ - failed_)
        << "B2: a batch of " << count << " after " << deliveries_ << " deliveries";
    deliveries_ = 0;
    failed_ = 0;
  }

  // Deliveries that no batch has counted, when the channel has a batch callback.
  long BatchesLag() const { return uses_batches_ ? std::max(0L, deliveries_ - failed_) : 0; }

  bool open_ = false;
  bool started_ = false;
  bool uses_batches_ = false;
  long deliveries_ = 0;
  long failed_ = 0;
};

}  // namespace

void CheckHistory(const std::vector<Event>& events, bool complete) {
  History history;
  for (const Event& event : events) {
    history.Take(event);
  }
  if (complete) {
    history.End();
  }
  if (testing::Test::HasFailure()) {
    std::string names;
    for (const Event& event : events) {
      names += " [" + event.name + "]";
    }
    // Long histories are cut: their beginning says the most.
    ADD_FAILURE() << "history:" << names.substr(0, 4000);
  }
}

}  // namespace kmcl::contract
