// As a checked build of a driver, whatever this build is.
#define DBG 1

#include "wdk/windows_format.h"

#include <gtest/gtest.h>
#include <kmcl/wdk/debug.h>

#include <array>
#include <string>

#include "log.h"

namespace kmcl::wdk {
namespace {

std::string Format(const char* format, ...) {
  std::array<char, 64> out;
  va_list arguments;
  va_start(arguments, format);
  const std::size_t length = FormatWindows(out, format, arguments);
  va_end(arguments);
  EXPECT_EQ(std::string(out.data()).size(), length);
  return {out.data(), length};
}

TEST(WindowsFormatTest, NumbersHaveTheWidthsOfWindows) {
  EXPECT_EQ(Format("%d %u", -5, 5u), "-5 5");
  // 64 bits where l reads 32: the upper half is not looked at.
  EXPECT_EQ(Format("%lu %ld", 0x100000005LL, 0x1FFFFFFFFLL), "5 -1");
  EXPECT_EQ(Format("%I64d %llx", -5000000000LL, 0x123456789ABULL), "-5000000000 123456789ab");
  EXPECT_EQ(Format("%Iu %zu", std::size_t{1} << 40, std::size_t{3}), "1099511627776 3");
  EXPECT_EQ(Format("%I32x", 0xFFFFFFFFu), "ffffffff");
  EXPECT_EQ(Format("%hx %hhx", 0x12345, 0x1FF), "2345 ff");
  EXPECT_EQ(Format("0x%08X|%-4d|%+d|%#x", 0xABCDu, 7, 7, 255), "0x0000ABCD|7   |+7|0xff");
  EXPECT_EQ(Format("%*d|%.3d", 4, 7, 7), "   7|007");
  EXPECT_EQ(Format("%p", reinterpret_cast<void*>(0xABC)), "0000000000000ABC");
}

TEST(WindowsFormatTest, StringsMayBeUtf16) {
  UNICODE_STRING name;
  RtlInitUnicodeString(&name, u"Gr\u00fc\u00dfe");
  EXPECT_EQ(Format("[%wZ]", &name), "[Gr\u00fc\u00dfe]");
  EXPECT_EQ(Format("%ws %S %ls", u"one", u"two", u"\U0001F600"), "one two \U0001F600");
  EXPECT_EQ(Format("%.2ws", u"abc"), "ab");
  EXPECT_EQ(Format("%s %5s|%.1s|%c%C", "abc", "d", "ef", 'g', u'h'), "abc     d|e|gh");
  EXPECT_EQ(Format("%s %ws", nullptr, nullptr), "(null) (null)");
  const char16_t half[] = {0xD800, u'x', 0};
  EXPECT_EQ(Format("%ws", half), "\uFFFDx");
}

TEST(WindowsFormatTest, OddFormatsDoNoHarm) {
  EXPECT_EQ(Format("100%% %"), "100% ");
  EXPECT_EQ(Format("%y"), "y");
  EXPECT_EQ(Format("%99999d", 1).size(), 63u);
  const std::string longer(100, 'a');
  EXPECT_EQ(Format("%s", longer.c_str()), std::string(63, 'a'));
}

std::string last_line;
LogLevel last_level;

TEST(DebugTest, MessagesGoToTheLog) {
  SetLogSink(
      [](void*, LogLevel level, const char* line) {
        last_line = line;
        last_level = level;
      },
      nullptr);
  EXPECT_EQ(DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL, "status %lx\n", 0xC0000001u),
            static_cast<ULONG>(STATUS_SUCCESS));
  EXPECT_NE(last_line.find("status c0000001"), std::string::npos) << last_line;
  EXPECT_EQ(last_line.find('\n'), std::string::npos);
  EXPECT_EQ(last_level, LogLevel::kError);
  last_line.clear();
  SetLogLevel(LogLevel::kWarning);
  DbgPrint("unseen");
  EXPECT_EQ(last_line, "");
  SetLogLevel(LogLevel::kInfo);
  KdPrint(("seen %d", 1));
  EXPECT_NE(last_line.find("seen 1"), std::string::npos);
  SetLogLevel(LogLevel::kWarning);
  SetLogSink(nullptr, nullptr);
}

TEST(DebugDeathTest, WhatDoesNotHoldAborts) {
  EXPECT_DEATH(NT_ASSERT(1 == 2), "1 == 2");
  NT_ASSERT(1 == 1);
  EXPECT_DEATH(KeBugCheckEx(0xC2, 1, 2, 3, 4), "0x000000C2");
  PAGED_CODE();
  KIRQL before = PASSIVE_LEVEL;
  KeRaiseIrql(DISPATCH_LEVEL, &before);
  EXPECT_DEATH(PAGED_CODE(), "APC_LEVEL");
  KeLowerIrql(before);
}

}  // namespace
}  // namespace kmcl::wdk
