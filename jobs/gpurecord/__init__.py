"""What raypipe does on a GPU: one record of correctness, speed and sensitivity (`jobs/gpu_record.py`).

Everything here runs where PyTorch, SciPy, XGBoost, nflows and pydantic are: without Ray, MLflow and Pythia.
"""
