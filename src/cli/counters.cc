#include "cli/counters.h"

#include <fmt/format.h>

namespace kmcl::cli {
namespace {

struct Counter {
  const char* name;
  UINT64 KMCL_CHANNEL_COUNTERS::*member;
};

constexpr Counter kCounters[] = {
    {"packets_sent", &KMCL_CHANNEL_COUNTERS::PacketsSent},
    {"bytes_sent", &KMCL_CHANNEL_COUNTERS::BytesSent},
    {"completions_sent", &KMCL_CHANNEL_COUNTERS::CompletionsSent},
    {"packets_received", &KMCL_CHANNEL_COUNTERS::PacketsReceived},
    {"bytes_received", &KMCL_CHANNEL_COUNTERS::BytesReceived},
    {"completions_received", &KMCL_CHANNEL_COUNTERS::CompletionsReceived},
    {"completions_unexpected", &KMCL_CHANNEL_COUNTERS::CompletionsUnexpected},
    {"batches", &KMCL_CHANNEL_COUNTERS::Batches},
    {"bells_rung", &KMCL_CHANNEL_COUNTERS::BellsRung},
    {"bells_received", &KMCL_CHANNEL_COUNTERS::BellsReceived},
    {"ring_full", &KMCL_CHANNEL_COUNTERS::RingFull},
    {"transactions_started", &KMCL_CHANNEL_COUNTERS::TransactionsStarted},
    {"transactions_completed", &KMCL_CHANNEL_COUNTERS::TransactionsCompleted},
    {"transactions_cancelled", &KMCL_CHANNEL_COUNTERS::TransactionsCancelled},
    {"outstanding", &KMCL_CHANNEL_COUNTERS::Outstanding},
    {"queued", &KMCL_CHANNEL_COUNTERS::Queued},
    {"publications", &KMCL_CHANNEL_COUNTERS::Publications},
};
static_assert(sizeof(KMCL_CHANNEL_COUNTERS) == 8 + sizeof(UINT64) * std::size(kCounters),
              "a counter is missing from the table");

double Ratio(double numerator, double denominator) {
  return denominator == 0 ? 0 : numerator / denominator;
}

}  // namespace

void Add(KMCL_CHANNEL_COUNTERS& sum, const KMCL_CHANNEL_COUNTERS& more) {
  for (const Counter& counter : kCounters) {
    sum.*counter.member += more.*counter.member;
  }
}

double MeanBatch(const KMCL_CHANNEL_COUNTERS& counters) {
  return Ratio(static_cast<double>(counters.PacketsReceived),
               static_cast<double>(counters.Batches));
}

double BellsPerThousandPackets(const KMCL_CHANNEL_COUNTERS& counters) {
  return 1000 * Ratio(static_cast<double>(counters.BellsRung),
                      static_cast<double>(counters.PacketsSent + counters.CompletionsSent));
}

Json ToJson(const KMCL_CHANNEL_COUNTERS& counters) {
  Json object;
  for (const Counter& counter : kCounters) {
    object[counter.name] = counters.*counter.member;
  }
  object["mean_batch"] = MeanBatch(counters);
  object["bells_per_thousand_packets"] = BellsPerThousandPackets(counters);
  return object;
}

std::string DescribeCounters(const KMCL_CHANNEL_COUNTERS& counters) {
  return fmt::format(
      "  sent      {} packets ({}), {} completions; ring full {} times\n"
      "  received  {} packets ({}), {} completions; {} batches, {:.1f} packets each\n"
      "  bells     {} rung ({:.1f} per thousand packets), {} received\n",
      HumanCount(counters.PacketsSent), HumanBytes(static_cast<double>(counters.BytesSent)),
      HumanCount(counters.CompletionsSent), HumanCount(counters.RingFull),
      HumanCount(counters.PacketsReceived), HumanBytes(static_cast<double>(counters.BytesReceived)),
      HumanCount(counters.CompletionsReceived), HumanCount(counters.Batches), MeanBatch(counters),
      HumanCount(counters.BellsRung), BellsPerThousandPackets(counters),
      HumanCount(counters.BellsReceived));
}

}  // namespace kmcl::cli
