# kmcl_gtests(TARGET LABEL label TIMEOUT seconds [SHARDS number] [ENVIRONMENT variable=value...]): the tests of a
# GoogleTest program, each a test of ctest's own with a process of its own.
#
# With sanitizers the start of a process takes longer than most tests do. Then SHARDS processes (2 where it
# is not said) share the program's tests among them; script/test still counts each.
function(kmcl_gtests target)
  cmake_parse_arguments(TESTS "" "LABEL;TIMEOUT;SHARDS" "ENVIRONMENT" ${ARGN})
  if(NOT KMCL_SANITIZE)
    gtest_discover_tests(${target} DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS ${TESTS_LABEL} TIMEOUT ${TESTS_TIMEOUT} ENVIRONMENT "${TESTS_ENVIRONMENT}")
    return()
  endif()
  if(NOT TESTS_SHARDS)
    set(TESTS_SHARDS 2)
  endif()
  math(EXPR last "${TESTS_SHARDS} - 1")
  math(EXPR timeout "${TESTS_TIMEOUT} * 10")
  foreach(shard RANGE ${last})
    add_test(NAME ${target}.${shard} COMMAND ${target})
    set_tests_properties(${target}.${shard} PROPERTIES LABELS ${TESTS_LABEL} TIMEOUT ${timeout}
      ENVIRONMENT "GTEST_TOTAL_SHARDS=${TESTS_SHARDS};GTEST_SHARD_INDEX=${shard};${TESTS_ENVIRONMENT}")
  endforeach()
endfunction()
