// For the static command only. fmt comes as a shared library and as headers; the other files use
// the former, and this one has the latter's code for what they call.
#define FMT_HEADER_ONLY
#include <fmt/format.h>

#include <string>

namespace kmcl::cli {
namespace {

// Functions that are inline are emitted only where somebody wants their address.
template <typename Function>
struct Emitted {
  Function* function;
};
[[gnu::used]] constexpr Emitted<std::string(fmt::string_view, fmt::format_args)> kFormat{
    fmt::vformat};
[[gnu::used]] constexpr Emitted<void(const char*)> kFormatError{fmt::detail::throw_format_error};
[[gnu::used]] constexpr Emitted<bool(std::uint32_t)> kIsPrintable{fmt::detail::is_printable};
[[gnu::used]] constexpr Emitted<void(const char*, int, const char*)> kAssertion{
    fmt::detail::assert_fail};

}  // namespace
}  // namespace kmcl::cli
