// Element-wise maths over the element types of the session ABI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace msserving::test_double {

// The wire number of "float32" and its like; 0: unknown.
int32_t DTypeFromName(std::string_view name);

// Bytes of one element; 0: unknown.
size_t ElementSize(int32_t dtype);

// sum[i] += values[i % values_count]; integers wrap around, bool is "or".
void AddInto(int32_t dtype, void* sum, size_t count, const void* values, size_t values_count);

// Integers wrap around, bool is "not".
void Negate(int32_t dtype, const void* values, void* negated, size_t count);

double ElementAsDouble(int32_t dtype, const void* values, size_t index);

}  // namespace msserving::test_double
