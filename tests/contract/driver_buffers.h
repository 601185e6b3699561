// What a driver under test does with memory: buffers of its own, GPADLs made of them, and GPADLs
// that it has mapped. One for each end; the verb "memory CHANNEL ..." leads here.
#pragma once

#include <kmcl/kmcl.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace kmcl::contract {

class DriverBuffers {
 public:
  DriverBuffers() = default;
  ~DriverBuffers();
  DriverBuffers(const DriverBuffers&) = delete;
  DriverBuffers& operator=(const DriverBuffers&) = delete;

  // `words` is a verb and what belongs to it; any thread. Parts are BUFFER:OFFSET:BYTES.
  //   make pool|heap BYTES                  -> buffer
  //   free BUFFER                           -> ok
  //   fill BUFFER OFFSET BYTES VALUE        -> ok
  //   holds BUFFER OFFSET BYTES VALUE       -> yes or no
  //   create FLAGS PART                     -> status handle (FromBuffer)
  //   chain FLAGS START LENGTH PARTS        -> status handle (FromMdl)
  //   pages FLAGS OFFSET BYTES BUFFER PAGES -> status handle (FromPfnList), by page of the buffer
  //   fragments FLAGS BUFFER RUN            -> the same, all of the buffer: the last RUN pages
  //   first delete HANDLE                         -> ok map FLAGS HANDLE                      ->
  //   status mdls bytes unmap HANDLE                          -> ok write HANDLE OFFSET BYTES VALUE
  //   -> ok, or "unmapped"; into what is mapped read HANDLE OFFSET BYTES VALUE        -> yes or no
  std::string Do(VMBCHANNEL channel, const std::vector<std::string>& words);

 private:
  struct Buffer {
    unsigned char* base = nullptr;
    std::size_t bytes = 0;
    bool pooled = false;
  };
  // Of a chain that stays as long as its GPADL.
  struct Chain {
    std::vector<PMDL> mdls;
  };

  Buffer Find(const std::string& id);
  unsigned char* At(const std::string& part, std::size_t* bytes);
  std::string Make(const std::vector<std::string>& words);
  std::string CreateChain(VMBCHANNEL channel, const std::vector<std::string>& words);
  std::string CreatePages(VMBCHANNEL channel, const std::vector<std::string>& words);
  std::string Map(VMBCHANNEL channel, const std::vector<std::string>& words);
  // Calls `each` with every stretch of a mapped chain; false if a part cannot be mapped.
  template <typename Each>
  bool ForEach(UINT32 handle, std::size_t offset, std::size_t bytes, const Each& each);

  std::mutex mutex_;
  std::map<int, Buffer> buffers_;
  std::map<UINT32, Chain> chains_;
  std::map<UINT32, PMDL> mapped_;
  int next_ = 0;
};

}  // namespace kmcl::contract
