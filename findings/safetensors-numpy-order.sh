#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy.save() writes the values of an array in Fortran order in another order, and
# raises nothing. The bytes in memory are written as they lie, under a shape that readers take for C order. Release
# 0.7.0 wrote the same array right. safetensors.torch.save() raises ValueError for a tensor that is not contiguous.
#
# Seen with safetensors 0.8.0, numpy 2.4, Python 3.11:
#   0.7.0 C order True, Fortran order True
#   0.8.0 C order True, Fortran order False
# Also reported by others as safetensors issue 825.
#
# It matters wherever arrays come from SciPy, scikit-learn or a transposition: they are often in Fortran order.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import safetensors
from safetensors.numpy import load, save

rows = np.arange(6, dtype=np.float32).reshape(2, 3)
equal = [np.array_equal(load(save({"rows": array}))["rows"], rows) for array in (rows, np.asfortranarray(rows))]
print(f"{safetensors.__version__} C order {equal[0]}, Fortran order {equal[1]}")
PYTHON

python3 -m venv "$folder/environment"
found=""
for version in 0.7.0 0.8.0; do
  "$folder/environment/bin/pip" install -qq --disable-pip-version-check "safetensors==$version" "numpy==2.4.0"
  found+=$("$folder/environment/bin/python" "$folder/show.py")$'\n'
done
printf '%s' "$found"

expected="0.7.0 C order True, Fortran order True
0.8.0 C order True, Fortran order False
"
[ "$found" = "$expected" ] || { echo "the behaviour has changed" >&2; exit 1; }
