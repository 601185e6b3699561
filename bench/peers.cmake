# kmcl_bench and the peers it is compared with. A peer that is not installed has no rows, and the
# results say so. Each peer is a file of its own; what comes from elsewhere stays outside of the tree.
add_executable(kmcl_bench main.cc runner.cc stage.cc cache_line.cc bare_rows.cc ring_rows.cc kmcl_bus.cc kmcl_rows.cc
  raw_rows.cc external_rows.cc channel_rows.cc peers/system.cc peers/posix_queue.cc)
target_link_libraries(kmcl_bench PRIVATE kmcl_flags kmcl)
target_include_directories(kmcl_bench PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})

# Linux's VMBus ring out of Debian's package of the kernel's source: one file, unchanged, with the two
# headers that describe its structures. It is GPL-2.0: it stays in the build folder, and so does a
# kmcl_bench that holds it.
set(KMCL_LINUX_SOURCE /usr/src/linux-source-6.1.tar.xz CACHE FILEPATH "Debian's linux-source-6.1")
set(LINUX_RING_DIR ${CMAKE_CURRENT_BINARY_DIR}/linux_ring)
if(EXISTS ${KMCL_LINUX_SOURCE} AND NOT EXISTS ${LINUX_RING_DIR}/ring_buffer.c)
  message(STATUS "Unpacking Linux's ring_buffer.c")
  execute_process(
    COMMAND tar --extract --file ${KMCL_LINUX_SOURCE} --directory ${CMAKE_CURRENT_BINARY_DIR}
      linux-source-6.1/drivers/hv/ring_buffer.c linux-source-6.1/include/linux/hyperv.h
      linux-source-6.1/include/uapi/linux/hyperv.h
    COMMAND_ERROR_IS_FATAL ANY)
  set(unpacked ${CMAKE_CURRENT_BINARY_DIR}/linux-source-6.1)
  configure_file(${unpacked}/include/linux/hyperv.h
    ${LINUX_RING_DIR}/include/linux/hyperv.h COPYONLY)
  configure_file(${unpacked}/include/uapi/linux/hyperv.h
    ${LINUX_RING_DIR}/include/uapi/linux/hyperv.h COPYONLY)
  # Everything else that they include is in linux_ring/shim.h.
  foreach(header linux/kernel linux/mm linux/uio linux/vmalloc linux/slab linux/prefetch linux/io
      linux/types linux/scatterlist linux/list linux/timer linux/completion linux/device
      linux/mod_devicetable linux/interrupt linux/reciprocal_div asm/mshyperv asm/hyperv-tlfs
      hyperv_vmbus)
    file(WRITE ${LINUX_RING_DIR}/include/${header}.h "")
  endforeach()
  configure_file(${unpacked}/drivers/hv/ring_buffer.c ${LINUX_RING_DIR}/ring_buffer.c COPYONLY)
endif()
if(EXISTS ${LINUX_RING_DIR}/ring_buffer.c)
  add_library(linux_ring OBJECT ${LINUX_RING_DIR}/ring_buffer.c linux_ring/glue.c)
  target_include_directories(linux_ring PRIVATE ${LINUX_RING_DIR}/include)
  # As the kernel is compiled, as far as it makes a difference here.
  target_compile_options(linux_ring PRIVATE -std=gnu11 -O2 -w -fno-strict-aliasing
    -include ${CMAKE_CURRENT_SOURCE_DIR}/linux_ring/shim.h)
  target_sources(kmcl_bench PRIVATE peers/linux_ring.cc $<TARGET_OBJECTS:linux_ring>)
  target_compile_definitions(kmcl_bench PRIVATE KMCL_BENCH_LINUX_RING)
endif()

find_package(Boost QUIET)
if(Boost_FOUND)
  target_sources(kmcl_bench PRIVATE peers/boost_spsc.cc peers/boost_queue.cc)
  target_compile_definitions(kmcl_bench PRIVATE KMCL_BENCH_BOOST)
endif()

find_library(KMCL_ZEROMQ zmq)
if(KMCL_ZEROMQ)
  target_sources(kmcl_bench PRIVATE peers/zeromq.cc)
  target_compile_definitions(kmcl_bench PRIVATE KMCL_BENCH_ZEROMQ)
  target_link_libraries(kmcl_bench PRIVATE ${KMCL_ZEROMQ})
endif()

find_library(KMCL_NNG nng)
if(KMCL_NNG)
  target_sources(kmcl_bench PRIVATE peers/nng.cc)
  target_compile_definitions(kmcl_bench PRIVATE KMCL_BENCH_NNG)
  target_link_libraries(kmcl_bench PRIVATE ${KMCL_NNG})
endif()

find_package(iceoryx_posh QUIET)
find_program(KMCL_ROUDI iox-roudi)
if(iceoryx_posh_FOUND AND KMCL_ROUDI)
  target_sources(kmcl_bench PRIVATE peers/iceoryx.cc)
  target_compile_definitions(kmcl_bench PRIVATE KMCL_BENCH_ICEORYX)
  target_link_libraries(kmcl_bench PRIVATE iceoryx_posh::iceoryx_posh)
endif()
