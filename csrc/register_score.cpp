// coinfer._core.score: the scoring kernels for Python.
//
// A live request scores one row, so a call must cost well under a microsecond. That rules out pybind11's argument
// conversion (140 ns per array): the two functions take their arguments as CPython passes them (METH_FASTCALL), look at
// the NumPy header in place and release the GIL only for work that is worth it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <bit>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>

#include "coinfer/score/score.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace coinfer::python {
namespace {

using Api = py::detail::npy_api;

constexpr std::array<const char*, kind_count> kind_names{"max_prob", "margin",       "entropy",
                                                         "energy",   "logit_margin", "gini"};
constexpr double lowest_temperature = 1e-30, highest_temperature = 1e30;
constexpr std::size_t worth_a_gil_release = std::size_t{1} << 16;  // bytes

struct Interned {
  std::array<PyObject*, kind_count> kind{};
  PyObject *label = PyUnicode_InternFromString("label"), *logits = PyUnicode_InternFromString("logits"),
           *probs = PyUnicode_InternFromString("probs");
  PyObject *float32 = Api::get().PyArray_DescrFromType_(Api::NPY_FLOAT_),
           *int32 = Api::get().PyArray_DescrFromType_(Api::NPY_INT32_);
  Interned() {
    for (std::size_t k = 0; k < kind_count; ++k) kind[k] = PyUnicode_InternFromString(kind_names[k]);
  }
};

const Interned& interned() {
  static const Interned* const names = new Interned;  // lives as long as the interpreter
  return *names;
}

[[noreturn]] void raise(const char* type, const std::string& message) {
  const py::object error = py::module_::import("coinfer.errors").attr(type);
  PyErr_SetObject(error.ptr(), py::str(message).ptr());
  throw py::error_already_set();
}

std::string text(PyObject* object) { return py::cast<std::string>(py::str(py::handle(object))); }

[[noreturn]] void raise_unknown(const char* what, PyObject* given, std::initializer_list<PyObject*> known) {
  py::list names;
  for (PyObject* name : known) names.append(py::handle(name));
  const py::object nearest = py::module_::import("coinfer.errors").attr("nearest");
  const std::string hint = py::cast<std::string>(nearest(py::str(py::handle(given)), names));
  raise("UnknownNameError",
        std::string("no ") + what + " is called " + py::cast<std::string>(py::repr(given)) + "; " + hint);
}

bool same(PyObject* given, PyObject* name) {
  return given == name || (PyUnicode_Check(given) && PyUnicode_Compare(given, name) == 0);
}

/// The index of a kind, kind_count for "label" where that is allowed.
std::size_t parse_kind(PyObject* given, bool label_allowed) {
  for (std::size_t k = 0; k < kind_count; ++k) {
    if (given == interned().kind[k]) return k;
  }
  for (std::size_t k = 0; k < kind_count; ++k) {
    if (same(given, interned().kind[k])) return k;
  }
  if (label_allowed && same(given, interned().label)) return kind_count;
  const auto& [a, b, c, d, e, f] = interned().kind;
  if (label_allowed) raise_unknown("result", given, {interned().label, a, b, c, d, e, f});
  raise_unknown("kind of score", given, {a, b, c, d, e, f});
}

bool parse_probs(PyObject* given) {
  if (same(given, interned().logits)) return false;
  if (same(given, interned().probs)) return true;
  raise_unknown("input", given, {interned().logits, interned().probs});
}

float parse_temperature(PyObject* given) {
  const double value = PyFloat_AsDouble(given);
  const bool allowed = value >= lowest_temperature && value <= highest_temperature;  // not NaN; -1, too, is an error's
  if (!allowed) {
    PyErr_Clear();
    raise("BadValueError", "temperature is " + text(given) + "; it must be a number between 1e-30 and 1e30");
  }
  return static_cast<float>(value);
}

unsigned parse_threads(PyObject* given) {
  constexpr long most = 4096;
  const long value = PyLong_AsLong(given);
  if (value < 1 || value > most) {  // -1 stands for an error, too
    PyErr_Clear();
    raise("BadValueError", "threads is " + text(given) + "; it must be an integer between 1 and 4096");
  }
  return static_cast<unsigned>(value);
}

const py::detail::PyArray_Proxy* as_array(PyObject* object) {
  return Api::get().PyArray_Check_(object) ? py::detail::array_proxy(object) : nullptr;
}

std::string shape_of(const py::detail::PyArray_Proxy* array) {
  std::string shape = "(";
  for (int i = 0; i < array->nd; ++i) shape += (i == 0 ? "" : ", ") + std::to_string(array->dimensions[i]);
  return shape + (array->nd == 1 ? ",)" : ")");
}

/// The table to score. `keep` owns the data if a copy was necessary.
Vectors parse_vectors(PyObject* z, py::object& keep) {
  const py::detail::PyArray_Proxy* array = as_array(z);
  if (array == nullptr) {
    raise("BadValueError", std::string("z is of type ") + Py_TYPE(z)->tp_name + "; it must be a NumPy array");
  }
  const py::detail::PyArrayDescr_Proxy* descr = py::detail::array_descriptor_proxy(array->descr);
  if (descr->type_num != Api::NPY_FLOAT_ && descr->type_num != Api::NPY_DOUBLE_) {
    raise("BadValueError", "z has dtype " + text(array->descr) + "; allowed are float32 and float64");
  }
  if (array->nd != 2) {
    raise("BadValueError", "z has shape " + shape_of(array) +
                               "; it must have two dimensions, rows x classes (for a single row, z[np.newaxis])");
  }
  if (array->dimensions[1] == 0)
    raise("BadValueError", "z has shape " + shape_of(array) + "; it needs at least one class");
  if (array->dimensions[1] > std::numeric_limits<Label>::max()) {
    raise("BadValueError", "z has shape " + shape_of(array) + "; labels are int32, which is too few for its classes");
  }
  const bool swapped = descr->byteorder == (std::endian::native == std::endian::little ? '>' : '<');
  if (swapped || (array->flags & Api::NPY_ARRAY_ALIGNED_) == 0) {
    keep = py::handle(z).attr("astype")(descr->type_num == Api::NPY_FLOAT_ ? "=f4" : "=f8");
    array = py::detail::array_proxy(keep.ptr());
  }
  Vectors vectors;
  vectors.data = array->data;
  vectors.float64 = descr->type_num == Api::NPY_DOUBLE_;
  vectors.rows = static_cast<std::size_t>(array->dimensions[0]);
  vectors.classes = static_cast<std::size_t>(array->dimensions[1]);
  const std::ptrdiff_t item = vectors.float64 ? sizeof(double) : sizeof(float);
  vectors.row_stride = array->strides[0] / item;
  vectors.class_stride = array->strides[1] / item;
  return vectors;
}

/// The bytes that an array spans, from its first to behind its last element.
std::array<const char*, 2> extent(const Vectors& vectors) {
  const std::ptrdiff_t item = vectors.float64 ? sizeof(double) : sizeof(float);
  const char* low = static_cast<const char*>(vectors.data);
  const char* high = low + item;
  const auto widen = [&](std::ptrdiff_t stride, std::size_t count) {
    const std::ptrdiff_t reach = stride * static_cast<std::ptrdiff_t>(count - 1) * item;
    (reach < 0 ? low : high) += reach;
  };
  if (vectors.rows == 0) return {low, low};
  widen(vectors.row_stride, vectors.rows);
  widen(vectors.class_stride, vectors.classes);
  return {low, high};
}

py::object result_array(PyObject* given, bool label, const char* name, const Vectors& vectors) {
  const auto rows = static_cast<Py_intptr_t>(vectors.rows);
  PyObject* descr = label ? interned().int32 : interned().float32;
  if (given == Py_None) {
    Py_INCREF(descr);  // the new array takes a reference
    PyObject* fresh =
        Api::get().PyArray_NewFromDescr_(Api::get().PyArray_Type_, descr, 1, &rows, nullptr, nullptr, 0, nullptr);
    if (fresh == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(fresh);
  }
  const auto refuse = [&](const std::string& what) {
    raise("BadValueError", "out " + what + "; for " + name +
                               " it must be a writeable, contiguous NumPy array of shape (" + std::to_string(rows) +
                               ",) and dtype " + (label ? "int32" : "float32"));
  };
  const py::detail::PyArray_Proxy* array = as_array(given);
  if (array == nullptr) refuse(std::string("is of type ") + Py_TYPE(given)->tp_name);
  if (array->nd != 1 || array->dimensions[0] != rows) refuse("has shape " + shape_of(array));
  if (array->descr != descr && !Api::get().PyArray_EquivTypes_(array->descr, descr)) {
    refuse("has dtype " + text(array->descr));
  }
  constexpr int flags = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_WRITEABLE_;
  if ((array->flags & flags) != flags) refuse("is read-only, unaligned or has gaps");
  const auto [low, high] = extent(vectors);
  if (array->data < high && low < array->data + rows * 4) refuse("overlaps z");
  return py::reinterpret_borrow<py::object>(given);
}

void* data_of(const py::object& array) { return py::detail::array_proxy(array.ptr())->data; }

std::size_t run(const Vectors& vectors, const Scores& scores, unsigned threads) {
  if (vectors.rows * vectors.classes * sizeof(float) < worth_a_gil_release) return score(vectors, scores, threads);
  const py::gil_scoped_release release;
  return score(vectors, scores, threads);
}

void need_logits(const Vectors& vectors, std::size_t kind) {
  const bool logits_only =
      kind == static_cast<std::size_t>(Kind::energy) || kind == static_cast<std::size_t>(Kind::logit_margin);
  if (vectors.probs && logits_only) {
    raise("UnsupportedError", std::string(kind_names[kind]) +
                                  " needs logits; with input='probs' there are max_prob, margin, "
                                  "entropy and gini");
  }
}

Vectors parse_table(PyObject* const* args, py::object& keep) {
  Vectors vectors = parse_vectors(args[0], keep);
  vectors.temperature = parse_temperature(args[2]);
  vectors.probs = parse_probs(args[3]);
  return vectors;
}

PyObject* score_one(PyObject* const* args) {
  if (!PyUnicode_Check(args[1]) || as_array(args[0]) == nullptr) {
    const py::object other = py::module_::import("coinfer.scoring").attr("_score_other");
    return PyObject_Vectorcall(other.ptr(), args, 6, nullptr);
  }
  py::object keep;
  const std::size_t kind = parse_kind(args[1], false);
  const Vectors vectors = parse_table(args, keep);
  const unsigned threads = parse_threads(args[5]);
  need_logits(vectors, kind);
  py::object result = result_array(args[4], false, kind_names[kind], vectors);
  Scores scores;
  scores.kind[kind] = static_cast<float*>(data_of(result));
  run(vectors, scores, threads);
  return result.release().ptr();
}

PyObject* score_many(PyObject* const* args) {
  py::object keep;
  const Vectors vectors = parse_table(args, keep);
  const unsigned threads = parse_threads(args[5]);
  if (PyUnicode_Check(args[1])) {
    raise("BadValueError", "kinds is a string; " + py::cast<std::string>(py::repr(args[1])) +
                               " is one name, and a sequence of names is needed");
  }
  const py::object kinds =
      py::reinterpret_steal<py::object>(PySequence_Fast(args[1], "kinds must be a sequence of names"));
  if (!kinds) throw py::error_already_set();
  PyObject* results = args[6];
  if (!PyDict_Check(results)) raise("BadValueError", "results go to a dict");
  Scores scores;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(kinds.ptr()); ++i) {
    const std::size_t kind = parse_kind(PySequence_Fast_GET_ITEM(kinds.ptr(), i), true);
    const bool label = kind == kind_count;
    if (!label) need_logits(vectors, kind);
    PyObject* name = label ? interned().label : interned().kind[kind];
    if (PyDict_Contains(results, name) != 0) continue;
    py::object out = py::none();
    if (args[4] != Py_None) {
      out = py::reinterpret_steal<py::object>(PyObject_GetItem(args[4], name));
      if (!out) {
        PyErr_Clear();
        raise("BadValueError", "out holds no array for " + text(name));
      }
    }
    const py::object result = result_array(out.ptr(), label, label ? "label" : kind_names[kind], vectors);
    if (label) {
      scores.label = static_cast<Label*>(data_of(result));
    } else {
      scores.kind[kind] = static_cast<float*>(data_of(result));
    }
    if (PyDict_SetItem(results, name, result.ptr()) != 0) throw py::error_already_set();
  }
  if (PyDict_Size(results) == 0) raise("BadValueError", "kinds is empty; name at least one score, or 'label'");
  return PyLong_FromSize_t(run(vectors, scores, threads));
}

/// C++ exceptions end here, as Python's.
template <PyObject* (*function)(PyObject* const*), Py_ssize_t expected>
PyObject* entry(PyObject* /*module*/, PyObject* const* args, Py_ssize_t count) {
  if (count != expected) {
    PyErr_Format(PyExc_TypeError, "expected %zd positional arguments, got %zd", expected, count);
    return nullptr;
  }
  try {
    try {
      return function(args);
    } catch (const std::invalid_argument& error) {
      raise("UnknownNameError", error.what());
    }
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <PyObject* (*function)(PyObject* const*), Py_ssize_t arguments>
PyMethodDef method(const char* name, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<function, arguments>)), METH_FASTCALL,
          doc};
}

}  // namespace

void register_score(py::module_& module) {
  py::module_ submodule = module.def_submodule("score", "Confidence scores from logits or probabilities, in one pass.");
  static PyMethodDef methods[] = {
      method<score_one, 6>("score",
                           "score(z, kind, temperature, input, out, threads) -> (N,) float32; where z is no array or "
                           "kind no string, what coinfer.scoring makes of them"),
      method<score_many, 7>("scores",
                            "scores(z, kinds, temperature, input, out, threads, results) -> rows without an answer; "
                            "the arrays are added to the dict `results`"),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(submodule.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace coinfer::python
