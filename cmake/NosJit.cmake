# The compiled tier of the CUDA back-end. It is host code and needs no toolkit; only jit.cc does, which loads kernels
# (NosCudaBackend.cmake).
#
# The headers that a compiled rule needs are one text inside the library: NVRTC gets the same scalar functions as nvcc and
# g++, from the same files. The text is written at configure time; a change of a header configures again.
set(NOS_PRELUDE "")
foreach(header backend/cuda/jit/rtc_std.h ops/portable.h ops/convert.h ops/math_f32.h ops/math.h ops/philox.h
               backend/cuda/common/records.h backend/cuda/common/memory.h backend/cuda/common/block.h
               backend/cuda/jit/loop.h)
  set(path "${PROJECT_SOURCE_DIR}/csrc/${header}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${path}")
  file(READ "${path}" text)
  string(REGEX REPLACE "#pragma once\n|#include [^\n]*\n" "" text "${text}")  # the order above replaces them
  string(REGEX REPLACE "(^|\n)( *//[^\n]*\n)+" "\\1" text "${text}")
  string(APPEND NOS_PRELUDE "${text}")
endforeach()
string(SHA256 NOS_PRELUDE_HASH "${NOS_PRELUDE}")
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/jit_prelude.cc" @ONLY CONTENT [=[
// written by cmake/NosJit.cmake
#include "backend/cuda/jit/source.h"

namespace nos::cuda::jit {
const std::string_view kPrelude = R"NOS(@NOS_PRELUDE@)NOS";
const std::string_view kPreludeHash = "@NOS_PRELUDE_HASH@";
}  // namespace nos::cuda::jit
]=])

find_package(Threads REQUIRED)
target_sources(nos_engine PRIVATE
  csrc/backend/cuda/jit/source.cc csrc/backend/cuda/jit/nvrtc.cc csrc/backend/cuda/jit/cache.cc
  csrc/backend/cuda/jit/promote.cc "${PROJECT_BINARY_DIR}/jit_prelude.cc")
target_include_directories(nos_engine PRIVATE csrc)
target_link_libraries(nos_engine PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
