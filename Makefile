# The two commands of the README are `make demo` and `make test`; the rest is for whoever works on the code.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check chaos cluster-test study methods demo-seeds bench-calibration bench-cifar bench-fixres bench-ingest bench-judging bench-label bench-ledger bench-precision bench-sampler bench-select bench-train bench-reduced robustness two-moons clean


demo: $(READY)
	$(BIN)/ray-ns demo-data data/digits
	$(BIN)/ray-ns run configs/demo.yaml

# Two files at a time, those with Ray first: Ray leaves a third of two cores idle.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# With SEEDS=1..12: seeded schedules of deaths over a run of two rounds (tests/support/chaos.py).
chaos: $(READY)
	$(BIN)/python $(if $(SEEDS),tests/support/chaos.py $(SEEDS),-m pytest -m chaos)

cluster-test: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	$(BIN)/python -m pytest -m cluster

study: $(READY)
	$(BIN)/ray-ns demo-data data/digits
	$(BIN)/ray-ns study configs/study.yaml all --seeds 3 --json | $(BIN)/python -m benchmarks.study_table study
	$(BIN)/ray-ns study configs/study.yaml noise --seeds 0..4 --json | $(BIN)/python -m benchmarks.study_table study-noise
	$(BIN)/ray-ns study configs/demo.yaml noise --seeds 0..4 --json | $(BIN)/python -m benchmarks.study_table demo-noise

methods: $(READY)
	$(BIN)/ray-ns demo-data data/digits
	$(BIN)/ray-ns study configs/methods.yaml methods --seeds 3 --json | $(BIN)/python -m benchmarks.study_table methods

demo-seeds: $(READY)
	$(BIN)/python -m benchmarks.demo_seeds

# CIFAR-10 with 4,000 labels: RAY_NS_CIFAR10 names the folder of its Parquet files. Two hours on one core.
bench-cifar: $(READY)
	$(BIN)/python -m benchmarks.cifar10_4k --update

# The digits; and CIFAR-10 where RAY_NS_CIFAR10 names the folder of its Parquet files.
robustness: $(READY)
	$(BIN)/python -m benchmarks.robustness

# Ten seeds of eight methods, and the claims made of them: some minutes on one core.
two-moons: $(READY)
	$(BIN)/python -m benchmarks.two_moons --update

bench-fixres: $(READY)
	$(BIN)/python -m benchmarks.fixres --update

bench-ledger: $(READY)
	$(BIN)/python -m benchmarks.ledger

bench-select: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.selection --rows 300000000

bench-ingest: $(READY)
	$(BIN)/python -m benchmarks.ingest --files 100000

# FASHION: a folder with the four files of Fashion-MNIST; Debian's package dataset-fashion-mnist has them.
bench-judging: $(READY)
	$(BIN)/python -m benchmarks.judging $(or $(FASHION),/usr/share/datasets/fashion-mnist) runs/judging

bench-label: $(READY)
	$(BIN)/python -m benchmarks.label --json

bench-train: $(READY)
	$(BIN)/python -m benchmarks.train --json

bench-precision: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.precision

bench-sampler: $(READY)
	$(BIN)/python -m benchmarks.sampler

# Stored labels that are wrong on 4 of 10 classes, corrected by a student's feedback; and confirmation bias.
bench-reduced: $(READY)
	$(BIN)/python -m benchmarks.reduced_mpl --update

# The demo's teacher with and without a temperature: three seeds, ten minutes.
bench-calibration: $(READY)
	$(BIN)/python -m benchmarks.calibration

clean:
	rm -rf .venv data runs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ray-ns needs Python 3.11 or newer, found $$($(PYTHON) -V); run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
