// The parts of kmcl/verifier.h that are there in every build.

#include <kmcl/verifier.h>

VOID KmclVerifierOptionsInit(PKMCL_VERIFIER_OPTIONS Options) {
  *Options = {};
  Options->Size = sizeof *Options;
  Options->Action = KmclVerifierStop;
  Options->CallbackMilliseconds = 1000;
  Options->PassiveMilliseconds = 30'000;
  Options->DrainMilliseconds = 10'000;
}
