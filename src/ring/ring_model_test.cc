// Our ends against the naive ones: the same actions on four rings (our writer or the naive one, our
// reader or the naive one), which must stay equal in every byte, answer and bell.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "ring/ring_test_ends.h"
#include "ring/ring_test_memory.h"

namespace kmcl::ring {
namespace {

struct Pairing {
  Pairing(std::uint32_t data_bytes, Mapped mapped, std::uint32_t start, Maker writer_maker,
          Maker reader_maker)
      : memory(data_bytes, mapped) {
    memory.Fill(0);
    memory.set_indices(start, start);
    memory.set_word(RingMemory::kFeatureBits, 1);
    writer = MakeWriter(writer_maker, memory.pages());
    reader = MakeReader(reader_maker, memory.pages());
  }
  RingMemory memory;
  std::unique_ptr<WriterEnd> writer;
  std::unique_ptr<ReaderEnd> reader;
};

class RingModelTest : public testing::TestWithParam<std::tuple<std::uint32_t, Mapped>> {};

INSTANTIATE_TEST_SUITE_P(, RingModelTest,
                         testing::Combine(testing::Values(4096, 3 * 4096, 16 * 4096),
                                          testing::Values(Mapped::kOnce, Mapped::kTwice)),
                         [](const auto& param) {
                           return "S" + std::to_string(std::get<0>(param.param)) +
                                  (std::get<1>(param.param) == Mapped::kOnce ? "Once" : "Twice");
                         });

TEST_P(RingModelTest, EveryPairOfEndsWritesTheSameBytesAndRingsTheSameBells) {
  const auto [data_bytes, mapped] = GetParam();
  std::mt19937 random(20240 + data_bytes);
  const auto below = [&](std::uint32_t limit) {
    return static_cast<std::uint32_t>(random() % limit);
  };
  int data_bells = 0, space_bells = 0, packets = 0, refusals = 0;

  const int round_count = data_bytes > 16384 ? 10 : 40;  // every step compares the whole ring
  for (int round = 0; round < round_count; ++round) {
    const std::uint32_t start = below(data_bytes / 8) * 8;
    std::vector<std::unique_ptr<Pairing>> pairings;
    for (const Maker writer : {Maker::kOurs, Maker::kModel}) {
      for (const Maker reader : {Maker::kOurs, Maker::kModel}) {
        pairings.push_back(std::make_unique<Pairing>(data_bytes, mapped, start, writer, reader));
      }
    }
    // Does one thing to all four; the answers must be equal.
    const auto all = [&](auto action) {
      const auto first = action(*pairings[0]);
      for (std::size_t i = 1; i < pairings.size(); ++i) {
        EXPECT_EQ(first, action(*pairings[i])) << "pairing " << i;
      }
      return first;
    };
    const auto publish = [&] {
      if (all([](Pairing& p) { return p.writer->Publish(); })) ++data_bells;
    };
    const auto commit = [&] {
      if (all([](Pairing& p) { return p.reader->Commit(); })) ++space_bells;
    };
    std::uint32_t wanted = 0;
    for (int step = 0; step < 300 && !HasFailure(); ++step) {
      switch (below(8)) {
        case 0:
        case 1:
        case 2: {
          ModelPacket packet{.type = static_cast<std::uint16_t>(1 + below(13)),
                             .flags = static_cast<std::uint16_t>(below(2)),
                             .transaction_id = random() * std::uint64_t{0x100000001},
                             .header = TestBytes(8 * below(5), random() & 0xFF),
                             .payload = {}};
          const std::uint32_t longest =
              data_bytes - 16 - 24 - static_cast<std::uint32_t>(packet.header.size());
          packet.payload =
              TestBytes(below(below(10) == 0 ? longest + 1 : std::min(600u, longest)), random());
          if (all([&](Pairing& p) { return p.writer->Put(packet); })) {
            ++packets;
          } else {
            ++refusals;
            wanted = OutgoingRing::PacketBytes(packet.header.size(), packet.payload.size());
          }
          break;
        }
        case 3:
          publish();
          break;
        case 4:
          if (wanted == 0) break;
          publish();
          if (all([&](Pairing& p) { return p.writer->Request(wanted); })) wanted = 0;
          break;
        case 5:
        case 6:
          all([](Pairing& p) { return p.reader->Take(); });
          if (below(3) == 0) commit();
          break;
        case 7:
          while (all([](Pairing& p) { return p.reader->Take(); })) {
            if (below(4) == 0) commit();
          }
          commit();
          EXPECT_TRUE(all([](Pairing& p) { return p.reader->Unmask(); }));
          if (below(2) == 0) break;
          all([](Pairing& p) {
            p.reader->Mask();
            return 0;
          });
          break;
      }
      for (std::size_t i = 1; i < pairings.size(); ++i) {
        ASSERT_EQ(std::memcmp(pairings[0]->memory.pages().control,
                              pairings[i]->memory.pages().control, kTestPageBytes),
                  0)
            << "control page of pairing " << i << ", round " << round << " step " << step;
        ASSERT_EQ(std::memcmp(pairings[0]->memory.data(), pairings[i]->memory.data(), data_bytes),
                  0)
            << "data of pairing " << i << ", round " << round << " step " << step;
      }
    }
  }
  EXPECT_GT(packets, 0);
  EXPECT_GT(refusals, 0);
  EXPECT_GT(data_bells, 0);
  EXPECT_GT(space_bells, 0);
}

}  // namespace
}  // namespace kmcl::ring
