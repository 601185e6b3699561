#include "api/verifier_report.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "api/verifier_callback.h"
#include "api/verifier_callback.h"
#include "log.h"
#include "mutex.h"

namespace kmcl::api::verifier {
namespace {

// What to do instead, by number.
constexpr const char* kAdvice[] = {
    "",
    "Retire each delivered packet exactly once: with VmbChannelPacketComplete, unless "
    "EvtVmbChannelProcessPacket ended in VmbChannelPacketDeferToPassive or VmbChannelPacketFail.",
    "In EvtVmbChannelSuspend cancel the work that holds received packets, and complete every one "
    "of "
    "them; the peer cannot do it for you.",
    "Forget a packet when it is freed; a packet of VmbPacketAllocate is freed by its completion "
    "routine "
    "unless you set your own.",
    "Stop all users of a channel before VmbChannelCleanup, and forget the handle.",
    "Free a packet before it is sent, or when its completion routine has been called: until then "
    "it is "
    "the library's.",
    "Send a packet again only when its completion routine has been called; use one packet for each "
    "send "
    "that may be under way.",
    "Call VmbPacketSetCompletionRoutine after VmbPacketInitialize, before the first send.",
    "Make the call at PASSIVE_LEVEL: release spin locks first, defer the packet "
    "(VmbChannelPacketDeferToPassive), or hand the work to a work item.",
    "Make the call from a thread of your own, or from a work item, after the callback has "
    "returned.",
    "Configure the channel between VmbChannelAllocate and the first successful VmbChannelEnable; "
    "to "
    "change it later, clean it up and allocate another.",
    "Delete (client) or unmap (server) every GPADL in EvtVmbChannelClosed at the latest.",
    "Call VmbChannelUnmapGpadl exactly once for each VmbChannelMapGpadl, on the same channel.",
    "Return soon: queue the work, and complete the packet later from a thread of your own.",
    "In EvtVmbChannelSuspend stop everything that sends, and send again from EvtVmbChannelStarted "
    "on.",
    "Call VmbPacketFree for every packet of VmbPacketAllocate before VmbChannelCleanup.",
    "Only packets of VmbPacketAllocate are freed; the memory of an initialized packet is yours.",
    "Initialize a packet once, and again only when its completion routine has been called.",
    "Set the completion routine before the send, and not again until it has been called.",
    "Leave every callback at the level at which it was entered: release what KeAcquireSpinLock "
    "took, and "
    "pair KeRaiseIrql with KeLowerIrql.",
    "Pass the handle that the library gave you, of the kind and end that the function asks for.",
    "Do not touch a packet or its buffer after it was freed or completed.",
    "Call VmbChannelPacketDeferToPassive only inside of EvtVmbChannelProcessPacket, for the packet "
    "that "
    "it was called with.",
    "Answer with at most the maximum packet size, or raise it with "
    "VmbChannelInitSetMaximumPacketSize.",
    "Call VmbChannelDisable before VmbChannelCleanup.",
    "Call VmbChannelDisable and VmbChannelCleanup for every channel before its endpoint is "
    "destroyed.",
};
static_assert(std::size(kAdvice) == KMCL_VERIFIER_LAST_CHECK + 1);

struct Settings {
  Mutex mutex;
  KMCL_VERIFIER_OPTIONS options KMCL_GUARDED_BY(mutex);
  VOID (*report)(PVOID, const KMCL_VERIFIER_REPORT*) KMCL_GUARDED_BY(mutex) = nullptr;
  PVOID context KMCL_GUARDED_BY(mutex) = nullptr;
  Mutex one_at_a_time;  // reports are many lines
};

// Never destroyed: a report may come while the process exits.
Settings& TheSettings() {
  static auto* const settings = [] {
    auto* const made = new Settings;
    MutexLock lock(made->mutex);
    KmclVerifierOptionsInit(&made->options);
    return made;
  }();
  return *settings;
}

std::string NameOf(KMCL_VERIFIER_CHECK check) { return Format("KMCL-V%02d", int{check}); }

// "drain=500" and the like. False: not this word, or no number.
bool ParseNumber(std::string_view word, std::string_view name, ULONG& value) {
  if (!word.starts_with(name)) return false;
  const std::string number(word.substr(name.size()));
  char* end = nullptr;
  const unsigned long parsed = std::strtoul(number.c_str(), &end, 10);
  if (number.empty() || *end != '\0' || number[0] == '-' || parsed > 0xFFFFFFFFul) return false;
  value = static_cast<ULONG>(parsed);
  return true;
}

bool ParseWord(const std::string& word, KMCL_VERIFIER_OPTIONS& options, bool& on) {
  if (word == "1" || word == "on" || word == "stop") {
    options.Action = KmclVerifierStop;
    return true;
  }
  if (word == "log") {
    options.Action = KmclVerifierLog;
    return true;
  }
  if (word == "0" || word == "off") {
    on = false;
    return true;
  }
  ULONG check = 0;
  if (ParseNumber(word, "-V", check) && check >= 1 && check <= KMCL_VERIFIER_LAST_CHECK) {
    options.LeaveOut |= UINT64{1} << check;
    return true;
  }
  return ParseNumber(word, "callback=", options.CallbackMilliseconds) ||
         ParseNumber(word, "passive=", options.PassiveMilliseconds) ||
         ParseNumber(word, "drain=", options.DrainMilliseconds);
}

}  // namespace

std::string Format(const char* format, ...) {
  char text[500];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

KMCL_VERIFIER_OPTIONS CurrentOptions() {
  Settings& settings = TheSettings();
  MutexLock lock(settings.mutex);
  return settings.options;
}

void SetOptions(const KMCL_VERIFIER_OPTIONS& options) {
  Settings& settings = TheSettings();
  MutexLock lock(settings.mutex);
  settings.options = options;
}

void SetReport(VOID (*report)(PVOID, const KMCL_VERIFIER_REPORT*), PVOID context) {
  Settings& settings = TheSettings();
  MutexLock lock(settings.mutex);
  settings.report = report;
  settings.context = context;
}

bool ParseOptions(const char* words, KMCL_VERIFIER_OPTIONS& options) {
  KmclVerifierOptionsInit(&options);
  bool on = *words != '\0';
  for (std::string_view rest = words; !rest.empty();) {
    const std::string word(rest.substr(0, rest.find(',')));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    if (!word.empty() && !ParseWord(word, options, on)) {
      Log(LogLevel::kWarning, "KMCL_VERIFIER: '%s' is not understood (kmcl/verifier.h)",
          word.c_str());
    }
  }
  return on;
}

Violation& Violation::Before(const char* what, const Site& site) {
  if (site) before_.push_back({what, site});
  return *this;
}

Violation& Violation::Now(const char* what, const Site& site) {
  now_.assign(1, {what, site});
  return *this;
}

Violation& Violation::Note(std::string line) {
  notes_.push_back(std::move(line));
  return *this;
}

std::string Violation::Text() const {
  std::string text = NameOf(check_) + ": " + done_ + "\n  What to do: " + kAdvice[check_] + "\n";
  for (const std::string& note : notes_) text += "  " + note + "\n";
  for (const Place& place : before_) {
    text += std::string("  ") + place.what + ": " + DescribeSite(place.site, at_) + "\n";
  }
  for (const Place& place : now_) {
    text += std::string("  ") + place.what + ": " + DescribeSite(place.site, at_) + "\n";
  }
  for (const Place& place : now_) {
    text += "  Stack:\n" + DescribeStack(place.site, "    ");
  }
  if (!before_.empty()) {
    text += std::string("  Stack of \"") + before_.front().what + "\":\n" +
            DescribeStack(before_.front().site, "    ");
  }
  return text;
}

bool Violation::Report() {
  Settings& settings = TheSettings();
  KMCL_VERIFIER_OPTIONS options;
  VOID (*report)(PVOID, const KMCL_VERIFIER_REPORT*) = nullptr;
  PVOID context = nullptr;
  {
    MutexLock lock(settings.mutex);
    options = settings.options;
    report = settings.report;
    context = settings.context;
  }
  if ((options.LeaveOut >> check_ & 1) != 0) return false;

  const ReportPause pause;
  const std::string name = NameOf(check_);
  const std::string text = Text();
  {
    MutexLock one_at_a_time(settings.one_at_a_time);
    if (report != nullptr) {
      const auto frame_of = [](const std::vector<Place>& places) {
        return places.empty() ? nullptr : ProgramFrame(places.front().site);
      };
      const KMCL_VERIFIER_REPORT told{.Size = sizeof told,
                                      .Check = check_,
                                      .Name = name.c_str(),
                                      .Violation = done_.c_str(),
                                      .Advice = kAdvice[check_],
                                      .Channel = channel_,
                                      .Object = const_cast<PVOID>(object_),
                                      .FirstSite = frame_of(before_),
                                      .SecondSite = frame_of(now_),
                                      .Text = text.c_str()};
      report(context, &told);
    } else {
      for (std::string_view rest = text; !rest.empty();) {
        const std::string line(rest.substr(0, rest.find('\n')));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        Log(LogLevel::kError, "%s", line.c_str());
      }
    }
    if (options.Action == KmclVerifierStop) std::abort();
  }
  return true;
}

}  // namespace kmcl::api::verifier
