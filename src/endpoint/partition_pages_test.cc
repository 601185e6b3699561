#include "endpoint/partition_pages.h"

#include <gtest/gtest.h>

#include <cstring>

#include "transport/test_support.h"

namespace kmcl::endpoint {
namespace {

class PartitionPagesTest : public ::testing::Test {
 protected:
  PartitionPagesTest()
      : listener_(*transport::Listen("local:pages")),
        connection_(transport::Connect(*listener_)),
        server_(std::move(connection_.server)),
        pages_(server_) {
    run_ = connection_.client->AllocatePages(4).value();
    first_ = std::to_underlying(run_.first);
    client_ = connection_.client->Map(transport::PagesOf(run_)).value();
  }

  std::unique_ptr<transport::Listener> listener_;
  transport::Connection connection_;
  std::shared_ptr<transport::Link> server_;
  PartitionPages pages_;
  transport::PageRun run_;
  PFN_NUMBER first_ = 0;
  transport::Mapping client_;
};

TEST_F(PartitionPagesTest, PagesInARowCostNoMapping) {
  const PFN_NUMBER row[] = {first_ + 1, first_ + 2};
  void* const one = pages_.Map(row, true);
  ASSERT_NE(one, nullptr);
  const std::size_t mappings = transport::PartitionMappingCount();
  void* const again = pages_.Map(row, false);
  EXPECT_EQ(again, one);
  EXPECT_EQ(transport::PartitionMappingCount(), mappings);
  std::memcpy(client_.base() + 4096, "seen", 5);
  EXPECT_STREQ(static_cast<char*>(one), "seen");
  pages_.Unmap(one, 2);
  pages_.Unmap(again, 2);
}

TEST_F(PartitionPagesTest, ScatteredPagesAreOneView) {
  const PFN_NUMBER scattered[] = {first_ + 3, first_, first_ + 2};
  const std::size_t mappings = transport::PartitionMappingCount();
  auto* const view = static_cast<char*>(pages_.Map(scattered, true));
  ASSERT_NE(view, nullptr);
  EXPECT_GT(transport::PartitionMappingCount(), mappings);
  std::memcpy(view + 4096, "zero", 5);
  std::memcpy(view, "three", 6);
  EXPECT_STREQ(reinterpret_cast<char*>(client_.base()), "zero");
  EXPECT_STREQ(reinterpret_cast<char*>(client_.base()) + 3 * 4096, "three");
  pages_.Unmap(view, 3);
  EXPECT_EQ(transport::PartitionMappingCount(), mappings);
}

TEST_F(PartitionPagesTest, PagesThatTheClientDoesNotHaveAreNotMapped) {
  const PFN_NUMBER beyond[] = {first_ + 4};
  const PFN_NUMBER partly[] = {first_, first_ + 900};
  const PFN_NUMBER absurd[] = {~PFN_NUMBER{0}, 0};
  EXPECT_EQ(pages_.Map(beyond, true), nullptr);
  EXPECT_EQ(pages_.Map(partly, true), nullptr);
  EXPECT_EQ(pages_.Map(absurd, true), nullptr);
  EXPECT_EQ(pages_.Map({}, true), nullptr);
}

TEST_F(PartitionPagesTest, NothingIsMappedAfterTheEnd) {
  const PFN_NUMBER scattered[] = {first_, first_ + 2};
  void* const left = pages_.Map(scattered, true);
  pages_.Close();
  EXPECT_EQ(server_.use_count(), 1);
  EXPECT_EQ(pages_.Map(scattered, true), nullptr);
  static_cast<char*>(left)[0] = 'x';  // a driver that is late does no harm
  pages_.Unmap(left, 2);
}

}  // namespace
}  // namespace kmcl::endpoint
