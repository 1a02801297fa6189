# Two C/C++ libraries that Debian does not package in the version we need, and headers. The sources are part of
# distributions on PyPI: fetched by pip, pinned by version and SHA-256, unpacked into a cache that
# all build directories share. Nothing of them is copied into this tree.
set(MSSERVING_THIRD_PARTY_DIR "${PROJECT_SOURCE_DIR}/.cache/third_party" CACHE PATH "Where fetched sources are kept")

# msserving_fetch_sdist(<package> <version> <sha256 of the .tar.gz>)  ->  <package>_SOURCE_DIR
function(msserving_fetch_sdist package version sha256)
  set(dir "${MSSERVING_THIRD_PARTY_DIR}/${package}-${version}")
  set(archive "${MSSERVING_THIRD_PARTY_DIR}/${package}-${version}.tar.gz")
  if(NOT EXISTS "${dir}/.complete")
    file(MAKE_DIRECTORY "${MSSERVING_THIRD_PARTY_DIR}")
    file(LOCK "${MSSERVING_THIRD_PARTY_DIR}/.lock" GUARD FUNCTION TIMEOUT 600)
    if(NOT EXISTS "${archive}")
      message(STATUS "Fetching ${package} ${version} (source distribution) with pip")
      foreach(python "${Python_EXECUTABLE}" python3)
        execute_process(
          COMMAND ${python} -m pip download --quiet --disable-pip-version-check --no-deps --no-binary ${package}
                  --dest "${MSSERVING_THIRD_PARTY_DIR}" "${package}==${version}"
          RESULT_VARIABLE failed ERROR_VARIABLE why)
        if(NOT failed)
          break()
        endif()
      endforeach()
      if(NOT EXISTS "${archive}")
        message(FATAL_ERROR "Could not fetch ${package} ${version}: ${why}\n"
                            "Put ${package}-${version}.tar.gz into ${MSSERVING_THIRD_PARTY_DIR} and configure again.")
      endif()
    endif()
    file(SHA256 "${archive}" actual)
    if(NOT actual STREQUAL sha256)
      file(REMOVE "${archive}")
      message(FATAL_ERROR "${package}-${version}.tar.gz has SHA-256 ${actual}, expected ${sha256}")
    endif()
    file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${MSSERVING_THIRD_PARTY_DIR}")
    file(TOUCH "${dir}/.complete")
  endif()
  set(${package}_SOURCE_DIR "${dir}" PARENT_SCOPE)
endfunction()

msserving_fetch_sdist(pysimdjson 7.0.2 44cf276e48912a3b9c7ca362c14da8420a7ac15a9f1a16ec95becff86db3904a)
add_library(msserving_simdjson STATIC "${pysimdjson_SOURCE_DIR}/simdjson/simdjson.cpp")
target_include_directories(msserving_simdjson SYSTEM PUBLIC "${pysimdjson_SOURCE_DIR}/simdjson")

msserving_fetch_sdist(httptools 0.9.0 d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6)
set(_llhttp "${httptools_SOURCE_DIR}/vendor/llhttp")
add_library(msserving_llhttp STATIC "${_llhttp}/src/api.c" "${_llhttp}/src/http.c" "${_llhttp}/src/llhttp.c")
target_include_directories(msserving_llhttp SYSTEM PUBLIC "${_llhttp}/include")

# The headers of oneDNN's C API, for the library that MindSpore ships without them. They are on PyPI as a wheel, which is
# tagged for one platform but has no binaries. The API is stable within a major version.
set(_onednn "${MSSERVING_THIRD_PARTY_DIR}/onednn-devel-2025.3.0")
set(_onednn_wheel "onednn_devel-2025.3.0-py2.py3-none-manylinux_2_28_x86_64.whl")
set(_onednn_sha256 3897b4ae65f09e289c10eef98455de069b08b5ac670a34921d406018362f5c95)
if(NOT EXISTS "${_onednn}/.complete")
  file(MAKE_DIRECTORY "${_onednn}")
  file(LOCK "${MSSERVING_THIRD_PARTY_DIR}/.lock" TIMEOUT 600)
  if(NOT EXISTS "${MSSERVING_THIRD_PARTY_DIR}/${_onednn_wheel}")
    message(STATUS "Fetching onednn-devel 2025.3.0 (headers) with pip")
    foreach(python "${Python_EXECUTABLE}" python3)
      execute_process(
        COMMAND ${python} -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all:
                --platform manylinux_2_28_x86_64 --dest "${MSSERVING_THIRD_PARTY_DIR}" onednn-devel==2025.3.0
        RESULT_VARIABLE failed ERROR_VARIABLE why)
      if(NOT failed)
        break()
      endif()
    endforeach()
    if(NOT EXISTS "${MSSERVING_THIRD_PARTY_DIR}/${_onednn_wheel}")
      message(FATAL_ERROR "Could not fetch onednn-devel 2025.3.0: ${why}\n"
                          "Put ${_onednn_wheel} into ${MSSERVING_THIRD_PARTY_DIR} and configure again.")
    endif()
  endif()
  file(SHA256 "${MSSERVING_THIRD_PARTY_DIR}/${_onednn_wheel}" actual)
  if(NOT actual STREQUAL _onednn_sha256)
    file(REMOVE "${MSSERVING_THIRD_PARTY_DIR}/${_onednn_wheel}")
    message(FATAL_ERROR "${_onednn_wheel} has SHA-256 ${actual}, expected ${_onednn_sha256}")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${MSSERVING_THIRD_PARTY_DIR}/${_onednn_wheel}" DESTINATION "${_onednn}")
  file(TOUCH "${_onednn}/.complete")
  file(LOCK "${MSSERVING_THIRD_PARTY_DIR}/.lock" RELEASE)
endif()
set(MSSERVING_ONEDNN_INCLUDE_DIR "${_onednn}/onednn_devel-2025.3.0.data/data/include")
set(MSSERVING_ONEDNN_LICENSE "${_onednn}/onednn_devel-2025.3.0.dist-info/LICENSE.txt")

find_package(PkgConfig REQUIRED)
pkg_check_modules(nghttp2 REQUIRED IMPORTED_TARGET libnghttp2>=1.52)
find_package(OpenSSL 3.0 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Threads REQUIRED)
