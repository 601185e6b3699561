// The emulated interrupt level of the calling thread.

#include "wdk/irql.h"

#include <kmcl/nt.h>

#include "result.h"

using kmcl::wdk::current_irql;

KIRQL KeGetCurrentIrql(VOID) { return current_irql; }

// The caller's mistakes; under Windows these stop the machine.
VOID KeRaiseIrql(KIRQL NewIrql, PKIRQL OldIrql) {
  KMCL_CHECK(NewIrql >= current_irql);
  *OldIrql = current_irql;
  current_irql = NewIrql;
}

VOID KeLowerIrql(KIRQL NewIrql) {
  KMCL_CHECK(NewIrql <= current_irql);
  current_irql = NewIrql;
}
