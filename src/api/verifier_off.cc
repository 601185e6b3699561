// kmcl/verifier.h of a library that is built without the verifier (KMCL_VERIFIER=OFF).

#include <kmcl/verifier.h>

NTSTATUS KmclVerifierEnable(const KMCL_VERIFIER_OPTIONS*) { return STATUS_NOT_SUPPORTED; }

BOOLEAN KmclVerifierIsEnabled(VOID) { return FALSE; }

VOID KmclVerifierSetReport(VOID (*)(PVOID, const KMCL_VERIFIER_REPORT*), PVOID) {}
