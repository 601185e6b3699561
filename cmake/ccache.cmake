# Compiles through ccache where it is installed. It is never required; a launcher that was given on the
# command line or in the environment wins.
if(NOT CMAKE_CXX_COMPILER_LAUNCHER AND NOT DEFINED ENV{CMAKE_CXX_COMPILER_LAUNCHER})
  find_program(KMCL_CCACHE ccache)
  mark_as_advanced(KMCL_CCACHE)
  if(KMCL_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER ${KMCL_CCACHE})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${KMCL_CCACHE})
  endif()
endif()
