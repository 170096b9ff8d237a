"""The command `layercast`: one file per verb."""
