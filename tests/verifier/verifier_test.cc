// Each mistake, made by a child process: the verifier stops it, or logs, and says what was wrong.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kmcl/verifier.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "child.h"
#include "misuse.h"

namespace kmcl::verifier_test {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string NameOf(KMCL_VERIFIER_CHECK check) {
  char name[16];
  std::snprintf(name, sizeof name, "KMCL-V%02d", int{check});
  return name;
}

// The numbers of all violations in what the verifier wrote.
std::set<std::string> ChecksIn(const std::string& text) {
  std::set<std::string> checks;
  const std::regex number("(^|\n)(KMCL-V[0-9]+): ");
  for (std::sregex_iterator each(text.begin(), text.end(), number), end; each != end; ++each) {
    checks.insert((*each)[2]);
  }
  return checks;
}

class EachMisuse : public testing::TestWithParam<Misuse> {
 protected:
  static std::string With(const char* action) {
    return std::string(action) + "," + GetParam().options;
  }
  static void ExpectToldIn(const std::string& text) {
    const Misuse& misuse = GetParam();
    EXPECT_THAT(ChecksIn(text), testing::ElementsAre(NameOf(misuse.check))) << text;
    EXPECT_THAT(text, HasSubstr(misuse.violation));
    EXPECT_THAT(text, HasSubstr("What to do: "));
    if (misuse.before != nullptr) {
      EXPECT_THAT(text, HasSubstr(misuse.before));
    }
    // Where: the function, and where the build has line tables also the file.
    if (misuse.site != nullptr) {
      EXPECT_THAT(text, HasSubstr(misuse.site));
      EXPECT_THAT(text, HasSubstr("#0 "));
#if KMCL_HAS_LINES
      EXPECT_THAT(text, HasSubstr("(misuse.cc:"));
#endif
    }
  }
};

TEST_P(EachMisuse, StopsTheProgram) {
  const Ended ended = RunMisuse(GetParam().name, With("stop"));
  EXPECT_EQ(ended.exit_code, -SIGABRT) << ended.text;
  ExpectToldIn(ended.text);
}

TEST_P(EachMisuse, IsLoggedAndTheProgramGoesOn) {
  const Ended ended = RunMisuse(GetParam().name, With("log"));
  EXPECT_EQ(ended.exit_code, 0) << ended.text;
  ExpectToldIn(ended.text);
}

INSTANTIATE_TEST_SUITE_P(Verifier, EachMisuse, testing::ValuesIn(AllMisuse()),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(Verifier, SaysNothingAboutAProgramThatIsRight) {
  const Ended ended = RunMisuse("none", "stop");
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_EQ(ended.text, "");
}

TEST(Verifier, IsOffWithoutTheVariableAndWhenItSaysSo) {
  for (const char* off : {"", "0", "off", "log,off"}) {
    const Ended ended = RunMisuse("LeakPacket", off);
    EXPECT_EQ(ended.exit_code, 0);
    EXPECT_THAT(ended.text, Not(HasSubstr("KMCL-V"))) << off;
  }
}

TEST(Verifier, LeavesOutTheChecksThatAreNamed) {
  const Ended ended = RunMisuse("LeakPacket", "stop,-V14,-V15");
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_EQ(ChecksIn(ended.text), std::set<std::string>());
}

TEST(Verifier, NamesAWordThatItDoesNotUnderstand) {
  const Ended ended = RunMisuse("none", "log,callback=soon,-V99");
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_THAT(ended.text, HasSubstr("'callback=soon' is not understood"));
  EXPECT_THAT(ended.text, HasSubstr("'-V99' is not understood"));
}

TEST(Verifier, IsSwitchedOnByTheProgramToo) {
  const Ended ended = RunMisuse("by-call", "");
  EXPECT_EQ(ended.exit_code, 0) << ended.text;
}

TEST(Verifier, RefusesOptionsThatAreNone) {
  KMCL_VERIFIER_OPTIONS options;
  KmclVerifierOptionsInit(&options);
  options.Size = 1;
  EXPECT_EQ(KmclVerifierEnable(&options), STATUS_INVALID_PARAMETER_1);
  KmclVerifierOptionsInit(&options);
  options.LeaveOut = 1;
  EXPECT_EQ(KmclVerifierEnable(&options), STATUS_INVALID_PARAMETER_1);
  KmclVerifierOptionsInit(&options);
  options.Action = static_cast<KMCL_VERIFIER_ACTION>(2);
  EXPECT_EQ(KmclVerifierEnable(&options), STATUS_INVALID_PARAMETER_1);
  EXPECT_FALSE(KmclVerifierIsEnabled());
}

// A check without a test or without its section is as good as none.
TEST(Verifier, EachCheckIsProvokedAndExplained) {
  std::ifstream file(KMCL_VERIFIER_PAGE);
  std::stringstream page;
  page << file.rdbuf();
  std::set<int> provoked;
  for (const Misuse& misuse : AllMisuse()) provoked.insert(misuse.check);
  for (int check = 1; check <= KMCL_VERIFIER_LAST_CHECK; ++check) {
    const std::string name = NameOf(static_cast<KMCL_VERIFIER_CHECK>(check));
    EXPECT_EQ(provoked.count(check), 1u) << name;
    EXPECT_THAT(page.str(), HasSubstr("## " + name + ": ")) << KMCL_VERIFIER_PAGE;
  }
}

// In a child: the hook is told everything, and the log nothing.
int RunByCall() {
  KMCL_VERIFIER_OPTIONS options;
  KmclVerifierOptionsInit(&options);
  options.Action = KmclVerifierLog;
  if (KmclVerifierEnable(&options) != STATUS_SUCCESS || !KmclVerifierIsEnabled()) return 4;
  static int good = 0;
  KmclVerifierSetReport(
      [](PVOID context, const KMCL_VERIFIER_REPORT* report) {
        if (context == &good && report->Size == sizeof *report &&
            report->Check == KmclCheckPacketFreed && std::strcmp(report->Name, "KMCL-V03") == 0 &&
            std::strstr(report->Violation, "had been freed") != nullptr &&
            std::strstr(report->Advice, "Forget") != nullptr && report->Channel != nullptr &&
            report->Object != nullptr && report->FirstSite != nullptr &&
            report->SecondSite != nullptr && report->FirstSite != report->SecondSite &&
            std::strstr(report->Text, "Stack:") != nullptr) {
          ++good;
        }
      },
      &good);
  for (const Misuse& misuse : AllMisuse()) {
    if (std::string(misuse.name) == "FreeTwice") misuse.run();
  }
  return good == 1 ? 0 : 5;
}

int RunInChild(const std::string& name) {
  if (name == "by-call") return RunByCall();
  if (name == "none") return RunWithoutMisuse(), 0;
  for (const Misuse& misuse : AllMisuse()) {
    if (name == misuse.name) return misuse.run(), 0;
  }
  return 2;
}

}  // namespace
}  // namespace kmcl::verifier_test

int main(int argc, char** argv) {
  const std::string prefix = "--misuse=";
  if (argc == 2 && std::string(argv[1]).starts_with(prefix)) {
    return kmcl::verifier_test::RunInChild(argv[1] + prefix.size());
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
