#include "devices/file_protocol.h"

namespace kmcl::devices {

const char* FileStatusText(std::uint32_t status) {
  switch (static_cast<FileStatus>(status)) {
    case FileStatus::kStored:
      return "stored";
    case FileStatus::kMalformed:
      return "the request was malformed";
    case FileStatus::kNameRefused:
      return "the name is not a plain file name";
    case FileStatus::kSizeRefused:
      return "the file is larger than a file can be";
    case FileStatus::kNotBegun:
      return "no file was being received";
    case FileStatus::kOutOfOrder:
      return "a chunk came out of order";
    case FileStatus::kBeyondSize:
      return "more content came than was announced";
    case FileStatus::kIncomplete:
      return "less content came than was announced";
    case FileStatus::kSystem:
      return "the server could not store the file";
    case FileStatus::kBusy:
      return "too many requests at a time";
  }
  return "the server answered with a status that does not exist";
}

}  // namespace kmcl::devices
