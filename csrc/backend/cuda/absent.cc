// What a build without the CUDA toolkit has in the place of the CUDA back-end.
#include "../backend.h"

namespace nos {

const Backend& cuda_backend() {
  throw TensorError("params are on a CUDA device and this build has no CUDA back-end (" NOS_CUDA_STATUS
                    "); move the tensors to the CPU");
}

Facts cuda_facts() {
  using Strings = std::vector<std::string>;
  return {{"enabled", false},          {"toolkit", ""},        {"architectures", ""}, {"devices", Strings()},
          {"status", NOS_CUDA_STATUS}, {"jit", "off: no CUDA"}};
}

}  // namespace nos
