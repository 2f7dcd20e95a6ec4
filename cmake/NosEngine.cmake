# nos_engine: everything of csrc/ but bind/, as one static library without Python and without torch.
add_library(nos_engine STATIC
  csrc/program/program.cc csrc/program/names.cc csrc/program/passes.cc
  csrc/program/verify.cc csrc/program/disasm.cc
  csrc/program/analysis.cc
  csrc/plan/plan.cc
  csrc/child/child.cc csrc/child/training.cc csrc/child/convolution.cc csrc/child/norm_pool.cc csrc/child/linear.cc
  csrc/child/relu.cc csrc/child/embedding.cc csrc/child/recurrence.cc csrc/child/gru.cc csrc/child/text_gru.cc
  csrc/child/text_linear.cc csrc/child/position_linear.cc csrc/child/peak.cc
  csrc/backend/cpu/engine.cc csrc/backend/cpu/reducing.cc csrc/backend/cpu/reducing_work.cc csrc/backend/cpu/threads.cc csrc/backend/cpu/isa.cc csrc/backend/cpu/interpreter/lower.cc
  csrc/backend/cpu/native/graph.cc csrc/backend/cpu/native/expand.cc csrc/backend/cpu/native/schedule.cc
  csrc/backend/cpu/native/stages.cc csrc/backend/cpu/native/allocate.cc csrc/backend/cpu/native/assemble.cc
  csrc/backend/cpu/native/x86/emit.cc csrc/backend/cpu/native/x86/emit_avx2.cc
  csrc/backend/cpu/native/x86/emit_avx512.cc csrc/backend/cpu/native/x86/code_memory.cc
  csrc/backend/cpu/native/native.cc)

# No contraction, no fast-math: results must not depend on the compiler's mood (docs/numerics.md).
set(NOS_NUMERICS -ffp-contract=off -fno-math-errno -fno-trapping-math)
target_compile_options(nos_engine PRIVATE ${NOS_NUMERICS} -Wall -Wextra)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # GCC 12 reports these falsely in std::string and std::vector (GCC bug 105651)
  set(NOS_FALSE_WARNINGS -Wno-restrict -Wno-array-bounds -Wno-stringop-overread)
  target_compile_options(nos_engine PRIVATE ${NOS_FALSE_WARNINGS})
endif()

# The block kernels are one source compiled once per instruction set; isa.cc picks one at load.
set(NOS_ISAS baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND NOS_ISAS avx2 avx512)
endif()
set(NOS_FLAGS_baseline "")
set(NOS_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(NOS_FLAGS_avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
foreach(isa IN LISTS NOS_ISAS)
  add_library(nos_kernels_${isa} OBJECT csrc/backend/cpu/kernels.cc)
  target_compile_definitions(nos_kernels_${isa} PRIVATE NOS_ISA=${isa})
  target_compile_options(nos_kernels_${isa} PRIVATE ${NOS_NUMERICS} ${NOS_FLAGS_${isa}} -O3 -Wall -Wextra)
  target_sources(nos_engine PRIVATE $<TARGET_OBJECTS:nos_kernels_${isa}>)
  if(NOS_FLAGS_${isa} MATCHES "-mfma")  # a child's numbers are those of fused multiply-adds
    add_library(nos_child_${isa} OBJECT csrc/child/kernels/table.cc csrc/child/kernels/product.cc
      csrc/child/kernels/weight_gradients.cc csrc/child/kernels/winograd.cc csrc/child/kernels/norm_pool.cc csrc/child/kernels/relu.cc
      csrc/child/kernels/loss.cc csrc/child/kernels/gather.cc csrc/child/kernels/positions.cc csrc/child/kernels/tokens.cc
      csrc/child/kernels/gates.cc csrc/child/peak_loop.cc)
    target_compile_definitions(nos_child_${isa} PRIVATE NOS_CHILD_ISA=${isa})
    target_compile_options(nos_child_${isa} PRIVATE ${NOS_NUMERICS} ${NOS_FLAGS_${isa}} -O3 -Wall -Wextra)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # falsely of GCC 12's own intrinsics (GCC bug 105593)
      target_compile_options(nos_child_${isa} PRIVATE -Wno-maybe-uninitialized -Wno-uninitialized)
    endif()
    target_sources(nos_engine PRIVATE $<TARGET_OBJECTS:nos_child_${isa}>)
  endif()
  string(TOUPPER ${isa} upper)
  target_compile_definitions(nos_engine PRIVATE NOS_HAVE_${upper})
endforeach()

if(NOS_TSAN)  # with threads that ThreadSanitizer understands
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    message(FATAL_ERROR "NOS_TSAN needs GCC: tests/tsan/parallel.cc stands in for GCC's OpenMP library")
  endif()
  target_sources(nos_engine PRIVATE tests/tsan/parallel.cc)
  target_compile_options(nos_engine PRIVATE -fopenmp)
elseif(NOT NOS_FUZZ)
  find_package(OpenMP COMPONENTS CXX)
  if(OpenMP_CXX_FOUND)
    target_link_libraries(nos_engine PUBLIC OpenMP::OpenMP_CXX)
  endif()
endif()

if(NOS_SANITIZE)
  set(NOS_SANITIZERS -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
elseif(NOS_TSAN)
  set(NOS_SANITIZERS -fsanitize=thread -fno-omit-frame-pointer -g)
endif()
if(NOS_SANITIZERS)
  target_compile_options(nos_engine PUBLIC ${NOS_SANITIZERS})
  target_link_options(nos_engine PUBLIC ${NOS_SANITIZERS})
  foreach(isa IN LISTS NOS_ISAS)
    target_compile_options(nos_kernels_${isa} PRIVATE ${NOS_SANITIZERS})
  endforeach()
endif()
if(NOS_FUZZ)  # coverage feedback from the verifier and the lowering
  target_compile_options(nos_engine PRIVATE -fsanitize=fuzzer-no-link)
endif()
