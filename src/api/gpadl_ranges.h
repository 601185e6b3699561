// From memory as a client's driver names it to the pages that its server sees. All three fail with
// kMemoryNotShared where the server sees nothing.
#pragma once

#include <kmcl/wdk/mdl.h>

#include <cstdint>
#include <span>

#include "endpoint/client_channel.h"
#include "result.h"
#include "wire/gpa_range.h"

namespace kmcl::api {

// Requires bytes > 0.
[[nodiscard]] Result<wire::GpaRangeList> RangesOfBuffer(const endpoint::ClientChannel& channel,
                                                        const void* buffer, std::uint32_t bytes);

// One range for each MDL. A list that is too long for a GPADL becomes one range if the MDLs follow
// each other page by page. Requires that the bytes are inside of the chain, and bytes > 0.
[[nodiscard]] Result<wire::GpaRangeList> RangesOfChain(const endpoint::ClientChannel& channel,
                                                       PMDL chain, std::uint32_t offset,
                                                       std::uint32_t bytes);

// One range. Requires as many pages as the bytes touch.
[[nodiscard]] Result<wire::GpaRangeList> RangesOfPages(const endpoint::ClientChannel& channel,
                                                       std::span<const PFN_NUMBER> pages,
                                                       std::uint32_t offset, std::uint32_t bytes);

}  // namespace kmcl::api
