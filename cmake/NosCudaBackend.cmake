# nos_cuda: the CUDA back-end as a static library. cudart is linked statically and libcuda is not linked at all, so the
# module loads on a machine without a driver and says so in build_info().
find_package(CUDAToolkit REQUIRED)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc has C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()
add_library(nos_cuda STATIC
  csrc/backend/cuda/common/batches.cc csrc/backend/cuda/common/step_block.cc
  csrc/backend/cuda/interpreter/lower.cc csrc/backend/cuda/interpreter/trees.cc
  csrc/backend/cuda/interpreter/program_table.cc
  csrc/backend/cuda/interpreter/shape.cc csrc/backend/cuda/captured/image.cc csrc/backend/cuda/reducing/image.cc
  csrc/backend/cuda/jit/jit.cc
  csrc/backend/cuda/runtime/runtime.cc csrc/backend/cuda/runtime/launch.cc csrc/backend/cuda/runtime/backend.cc csrc/backend/cuda/runtime/device_passes.cc
  csrc/backend/cuda/runtime/reducing_job.cc
  csrc/backend/cuda/runtime/captured_step.cc csrc/backend/cuda/runtime/facts.cc csrc/backend/cuda/runtime/kernels.cu)
target_link_libraries(nos_cuda PUBLIC nos_engine CUDA::cudart_static)
target_compile_definitions(nos_cuda PRIVATE NOS_CUDA_TOOLKIT="${CMAKE_CUDA_COMPILER_VERSION}"
                                            NOS_CUDA_ARCHITECTURES="${NOS_CUDA_ARCHITECTURES}")
set_target_properties(nos_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                                          CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
# --fmad=false: the bits of docs/numerics.md. The jump table makes the interpreter's dispatch one indirect branch; nvcc's
# default is a tree of comparisons, with the same results, and `make gate` notices if a toolkit loses the option.
target_compile_options(nos_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:${NOS_NUMERICS} -Wall -Wextra ${NOS_FALSE_WARNINGS}>
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Werror=switch>" $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false> "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xcicc -jump-table-density=10>")
