# Compiles through ccache where it is installed. It is never required; a launcher that was given on the
# command line or in the environment wins.
if(NOT CMAKE_CXX_COMPILER_LAUNCHER AND NOT DEFINED ENV{CMAKE_CXX_COMPILER_LAUNCHER})
  find_program(KMCL_CCACHE ccache)
  mark_as_advanced(KMCL_CCACHE)
  if(KMCL_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER ${KMCL_CCACHE})
    # It leaves alone what reads precompiled headers unless it is told that no macro in them matters.
    set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${KMCL_CCACHE})
  endif()
endif()
