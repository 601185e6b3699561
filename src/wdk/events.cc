#include <kmcl/wdk/events.h>

#include "wdk/clock.h"
#include "wdk/irql.h"
#include "wdk/misuse.h"
#include "wdk/signal_word.h"

using namespace kmcl::wdk;

namespace {

std::uint32_t& WordOf(PRKEVENT event) {
  return reinterpret_cast<std::uint32_t&>(event->Header.SignalState);
}

bool IsNotification(PRKEVENT event) { return event->Header.Type == NotificationEvent; }

}  // namespace

VOID KeInitializeEvent(PRKEVENT Event, EVENT_TYPE Type, BOOLEAN State) {
  *Event = KEVENT{};
  Event->Header.Type = static_cast<UCHAR>(Type);
  Event->Header.SignalState = State != FALSE ? 1 : 0;
  Event->Header.WaitListHead = {&Event->Header.WaitListHead, &Event->Header.WaitListHead};
}

LONG KeSetEvent(PRKEVENT Event, KPRIORITY, BOOLEAN) {
  return IsNotification(Event) ? SignalAll(WordOf(Event)) : SignalOne(WordOf(Event));
}

LONG KeResetEvent(PRKEVENT Event) { return Unsignal(WordOf(Event)); }

VOID KeClearEvent(PRKEVENT Event) { Unsignal(WordOf(Event)); }

LONG KeReadStateEvent(PRKEVENT Event) { return IsSignalled(WordOf(Event)); }

NTSTATUS KeWaitForSingleObject(PVOID Object, KWAIT_REASON, KPROCESSOR_MODE, BOOLEAN,
                               PLARGE_INTEGER Timeout) {
  auto* const event = static_cast<PRKEVENT>(Object);
  std::uint32_t& word = WordOf(event);
  if (Timeout != nullptr && Timeout->QuadPart == 0) {
    const bool signalled = IsNotification(event) ? IsSignalled(word) : TryTake(word);
    return signalled ? STATUS_SUCCESS : STATUS_TIMEOUT;
  }
  Require(current_irql < DISPATCH_LEVEL, "KeWaitForSingleObject",
          "must not wait at DISPATCH_LEVEL");
  Deadline deadline;
  if (Timeout != nullptr) deadline = DeadlineOf(Timeout->QuadPart);
  const bool signalled =
      IsNotification(event) ? WaitUntilSignalled(word, deadline) : WaitAndTake(word, deadline);
  return signalled ? STATUS_SUCCESS : STATUS_TIMEOUT;
}
