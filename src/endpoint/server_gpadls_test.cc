#include "endpoint/server_gpadls.h"

#include <gtest/gtest.h>

#include <vector>

namespace kmcl::endpoint {
namespace {

constexpr wire::ChannelId kChannel{3};
constexpr wire::GpadlId kRing{1};
constexpr wire::GpadlId kBuffer{2};
constexpr wire::GpadlId kReadOnlyBuffer{wire::kReadOnlyGpadlBit | 3};

// Counts the views that stand.
class CountingPages final : public wdk::PageSpace {
 public:
  void* Map(std::span<const PFN_NUMBER> pages, bool) override {
    ++views;
    memory_.resize(pages.size() * PAGE_SIZE);
    return memory_.data();
  }
  void Unmap(void*, std::size_t) override { --views; }
  int views = 0;

 private:
  std::vector<std::byte> memory_;
};

class ServerGpadlsTest : public ::testing::Test {
 protected:
  ServerGpadlsTest() {
    for (const wire::GpadlId id : {kRing, kBuffer, kReadOnlyBuffer}) {
      gpadls_.Add(kChannel, id, wire::GpaRangeList::OfPages(wire::PageNumber{5}, 2).value());
    }
  }
  Result<PMDL> Map(wire::GpadlId id, wdk::Access access = wdk::Access::kReadWrite) {
    return gpadls_.Map(pages_, id, access, [](const ServerGpadls::Released& released) {
      EXPECT_EQ(released.channel, kChannel);
      return std::make_unique<BusThread::Prepared>([] {});
    });
  }

  CountingPages pages_;
  ServerGpadls gpadls_;
};

TEST_F(ServerGpadlsTest, NothingIsMappedBeforeTheOpenAndAfterTheClose) {
  EXPECT_EQ(Map(kBuffer).error(), Error::kChannelState);
  gpadls_.Open(kRing);
  EXPECT_TRUE(Map(kBuffer).has_value());
  EXPECT_EQ(gpadls_.Close().mapped, 1U);
  EXPECT_EQ(Map(kBuffer).error(), Error::kChannelState);
  EXPECT_EQ(gpadls_.Unmap(kBuffer).error(), Error::kGpadlState);
}

TEST_F(ServerGpadlsTest, TheRingOfAnOpenIsNotForTheDriver) {
  gpadls_.Open(kRing);
  EXPECT_EQ(Map(kRing).error(), Error::kGpadlUnknown);
  (void)gpadls_.Close();
  gpadls_.Open(kBuffer);
  EXPECT_TRUE(Map(kRing).has_value()) << "of another open it is memory like any other";
  EXPECT_EQ(Map(kBuffer).error(), Error::kGpadlUnknown);
}

TEST_F(ServerGpadlsTest, WhatIsNotMappedIsReleasedAtOnce) {
  gpadls_.Open(kRing);
  EXPECT_TRUE(gpadls_.Release(kBuffer));
  EXPECT_EQ(gpadls_.Find(kBuffer), nullptr);
  EXPECT_EQ(Map(kBuffer).error(), Error::kGpadlUnknown);
  EXPECT_TRUE(gpadls_.Release(kBuffer)) << "nobody holds what is not there";
}

TEST_F(ServerGpadlsTest, WhatIsMappedIsReleasedByUnmap) {
  gpadls_.Open(kRing);
  ASSERT_TRUE(Map(kBuffer).has_value());
  EXPECT_FALSE(gpadls_.Release(kBuffer));
  EXPECT_EQ(Map(kBuffer).error(), Error::kGpadlState);
  const auto unmapped = gpadls_.Unmap(kBuffer);
  ASSERT_TRUE(unmapped.has_value());
  EXPECT_NE(*unmapped, nullptr) << "the bus thread is to be told";
  EXPECT_EQ(gpadls_.Unmap(kBuffer).error(), Error::kGpadlUnknown);
  EXPECT_EQ(Map(kBuffer).error(), Error::kGpadlUnknown);
  EXPECT_TRUE(gpadls_.Release(kBuffer));
  EXPECT_EQ(gpadls_.Find(kBuffer), nullptr);
}

// A server is taken over between the unmap and the moment in which the bus thread hears of it: the
// client waits for an answer, and only the successor can give it.
TEST_F(ServerGpadlsTest, WhatWasUnmappedIsWantedBackUntilTheBusThreadHasHeardOfIt) {
  gpadls_.Open(kRing);
  ASSERT_TRUE(Map(kBuffer).has_value());
  EXPECT_FALSE(gpadls_.Release(kBuffer));
  EXPECT_EQ(gpadls_.WantedBack(), std::vector{kBuffer});
  ASSERT_TRUE(gpadls_.Unmap(kBuffer).has_value());
  EXPECT_EQ(gpadls_.WantedBack(), std::vector{kBuffer});
  EXPECT_TRUE(gpadls_.All().contains(kBuffer));
  EXPECT_EQ(gpadls_.Close().released.size(), 0U) << "the task that was returned does that";
  EXPECT_TRUE(gpadls_.Release(kBuffer));
  EXPECT_TRUE(gpadls_.WantedBack().empty());
}

TEST_F(ServerGpadlsTest, AnUnmapWithoutAReleaseTellsNobody) {
  gpadls_.Open(kRing);
  ASSERT_TRUE(Map(kBuffer).has_value());
  const auto unmapped = gpadls_.Unmap(kBuffer);
  ASSERT_TRUE(unmapped.has_value());
  EXPECT_EQ(*unmapped, nullptr);
  EXPECT_TRUE(Map(kBuffer).has_value());
}

TEST_F(ServerGpadlsTest, TheCloseEndsViewsAndReleasesWhatWasAskedBack) {
  gpadls_.Open(kRing);
  const auto wanted_back = Map(kBuffer);
  const auto kept = Map(kReadOnlyBuffer, wdk::Access::kReadOnly);
  ASSERT_TRUE(wanted_back.has_value() && kept.has_value());
  ASSERT_NE(MmGetSystemAddressForMdlSafe(*wanted_back, NormalPagePriority), nullptr);
  ASSERT_NE(MmGetSystemAddressForMdlSafe(*kept, NormalPagePriority), nullptr);
  EXPECT_EQ(pages_.views, 2);
  EXPECT_FALSE(gpadls_.Release(kBuffer));
  const ServerGpadls::Leftovers left = gpadls_.Close();
  EXPECT_EQ(pages_.views, 0);
  EXPECT_EQ(left.mapped, 2U);
  ASSERT_EQ(left.released.size(), 1U);
  EXPECT_EQ(left.released[0].gpadl, kBuffer);
  EXPECT_EQ(gpadls_.Find(kBuffer), nullptr);
  EXPECT_NE(gpadls_.Find(kReadOnlyBuffer), nullptr);
}

TEST_F(ServerGpadlsTest, ReadOnlyIsInTheHandle) {
  gpadls_.Open(kRing);
  EXPECT_EQ(Map(kReadOnlyBuffer).error(), Error::kGpadlReadOnly);
  const auto mapped = Map(kReadOnlyBuffer, wdk::Access::kReadOnly);
  ASSERT_TRUE(mapped.has_value());
  EXPECT_EQ((*mapped)->MdlFlags & MDL_WRITE_OPERATION, 0);
}

TEST_F(ServerGpadlsTest, AllAreThereForASuccessor) {
  const auto all = gpadls_.All();
  EXPECT_EQ(all.size(), 3U);
  EXPECT_EQ(all.at(kBuffer), wire::GpaRangeList::OfPages(wire::PageNumber{5}, 2).value());
}

}  // namespace
}  // namespace kmcl::endpoint
