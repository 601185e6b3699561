# What `cmake --install` puts where: headers, both libraries, vmbus (src/cli), and what pkg-config and
# find_package need. docs/packaging.md.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# The same objects as the static library. The linker's script shows the C functions and nothing else.
add_library(kmcl_shared SHARED $<TARGET_OBJECTS:kmcl_base>)
get_property(rooms GLOBAL PROPERTY KMCL_ROOMS)
foreach(room IN LISTS rooms)
  target_sources(kmcl_shared PRIVATE $<TARGET_OBJECTS:kmcl_${room}>)
endforeach()
set_target_properties(kmcl_shared PROPERTIES
  OUTPUT_NAME kmcl
  EXPORT_NAME kmcl
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/kmcl.map)
target_link_options(kmcl_shared PRIVATE
  LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/kmcl.map)
if(NOT KMCL_SANITIZE)  # their runtimes are the program's
  target_link_options(kmcl_shared PRIVATE LINKER:--no-undefined)
endif()
target_link_libraries(kmcl_shared PRIVATE $<BUILD_INTERFACE:kmcl_flags> PUBLIC Threads::Threads)
target_include_directories(kmcl_shared PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(kmcl PROPERTIES EXPORT_NAME kmcl_static)

# For sources that say #include <ntddk.h>.
add_library(kmcl_wdk_headers INTERFACE)
set_target_properties(kmcl_wdk_headers PROPERTIES EXPORT_NAME wdk)
target_link_libraries(kmcl_wdk_headers INTERFACE kmcl_shared)
target_include_directories(kmcl_wdk_headers INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include/wdk>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/wdk>)

install(TARGETS kmcl kmcl_shared kmcl_wdk_headers EXPORT kmclTargets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(config_directory ${CMAKE_INSTALL_LIBDIR}/cmake/kmcl)
install(EXPORT kmclTargets NAMESPACE kmcl:: DESTINATION ${config_directory})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/kmclConfig.cmake.in
  ${PROJECT_BINARY_DIR}/kmclConfig.cmake INSTALL_DESTINATION ${config_directory})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kmclConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kmclConfig.cmake ${PROJECT_BINARY_DIR}/kmclConfigVersion.cmake
  DESTINATION ${config_directory})

# Relative to the .pc files themselves, so that --prefix may name another place.
file(RELATIVE_PATH KMCL_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" KMCL_PC_PREFIX "${KMCL_PC_PREFIX}")
foreach(package IN ITEMS kmcl kmcl-wdk)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${package}.pc.in ${PROJECT_BINARY_DIR}/${package}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${package}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
