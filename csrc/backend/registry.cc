// Says which back-end serves which kind of device: the one of its row in devices.def.
#include "backend.h"

namespace nos {

const Backend& backend_of(DeviceKind kind) {
  switch (kind) {
#define NOS_DEVICE(name, dlpack) \
  case DeviceKind::name:         \
    return name##_backend();
#include "../plan/devices.def"
#undef NOS_DEVICE
  }
  throw std::logic_error("a device of no kind");
}

std::vector<std::pair<std::string, Facts>> facts_of_backends() {
  return {
#define NOS_DEVICE(name, dlpack) {#name, name##_facts()},
#include "../plan/devices.def"
#undef NOS_DEVICE
  };
}

}  // namespace nos
