# kmcl_precompile(TARGET library|test): with KMCL_PRECOMPILE, the headers that most of the target's sources read
# are compiled once for all. That halves the compilation of a test. It also hides that a source does not include
# what it uses, so builds that are made without it are what proves that.
option(KMCL_PRECOMPILE "Compile common headers once for all sources" OFF)
if(NOT KMCL_PRECOMPILE)
  function(kmcl_precompile target kind)
  endfunction()
  return()
endif()

set(KMCL_library_headers
  <algorithm> <array> <atomic> <chrono> <condition_variable> <deque> <expected> <functional> <map> <memory> <mutex>
  <optional> <span> <string> <thread> <unordered_map> <variant> <vector>)
set(KMCL_test_headers ${KMCL_library_headers} <gmock/gmock.h> <gtest/gtest.h>)

file(WRITE ${PROJECT_BINARY_DIR}/precompiled.cc "int main() {}\n")
add_library(kmcl_library_headers OBJECT ${PROJECT_BINARY_DIR}/precompiled.cc)
target_link_libraries(kmcl_library_headers PRIVATE kmcl_flags)
add_executable(kmcl_test_headers ${PROJECT_BINARY_DIR}/precompiled.cc)  # position independent as programs are
target_link_libraries(kmcl_test_headers PRIVATE kmcl_test_flags GTest::gtest GTest::gmock)
foreach(kind IN ITEMS library test)
  target_precompile_headers(kmcl_${kind}_headers PRIVATE ${KMCL_${kind}_headers})
endforeach()
# The file's time in what is compiled would keep ccache from finding it again.
add_compile_options("$<$<COMPILE_LANG_AND_ID:CXX,Clang>:SHELL:-Xclang -fno-pch-timestamp>")

function(kmcl_precompile target kind)
  target_precompile_headers(${target} REUSE_FROM kmcl_${kind}_headers)
endfunction()
