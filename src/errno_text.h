// Error numbers of the system in words.
#pragma once

namespace kmcl {

// What an error number of the system means. strerror() may be called by one thread at a time only.
class ErrnoText {
 public:
  explicit ErrnoText(int error);
  const char* words() const { return words_; }  // as long as this stands
  ErrnoText(const ErrnoText&) = delete;
  ErrnoText& operator=(const ErrnoText&) = delete;

 private:
  char buffer_[64];
  const char* words_;
};

}  // namespace kmcl
