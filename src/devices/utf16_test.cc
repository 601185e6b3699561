#include "devices/utf16.h"

#include <gtest/gtest.h>

namespace kmcl::devices {
namespace {

std::string Back(std::u16string_view units) {
  return TextFromUtf16(std::as_bytes(std::span(units)));
}

TEST(Utf16, TakesEveryLengthOfCharacterThereAndBack) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\xA7";
  EXPECT_EQ(Utf16FromText(text), u"a\u00e9\u20ac\U0001F427");
  EXPECT_EQ(Back(u"a\u00e9\u20ac\U0001F427"), text);
}

TEST(Utf16, ReplacesWhatIsNotUtf8) {
  for (const char* bad : {"\x80", "\xC0\xAF", "\xE2\x82", "\xED\xA0\x80", "\xF5\x80\x80\x80"}) {
    const auto units = Utf16FromText(bad);
    ASSERT_FALSE(units.empty());
    EXPECT_EQ(units.front(), u'\uFFFD');
  }
}

TEST(Utf16, ReplacesLoneSurrogatesAndStopsAtNul) {
  const char16_t lone[] = {0xD800, u'x', 0xDC00, 0};
  EXPECT_EQ(Back({lone, 3}), "\xEF\xBF\xBDx\xEF\xBF\xBD");
  EXPECT_EQ(Back({u"ab\0cd", 5}), "ab");
  const std::byte odd[] = {std::byte{'a'}, std::byte{0}, std::byte{'b'}};
  EXPECT_EQ(TextFromUtf16(odd), "a");
  EXPECT_EQ(TextFromUtf16({}), "");
}

}  // namespace
}  // namespace kmcl::devices
