"""Final answers: found in a completion (`extract`) and compared with a gold answer (`judge`). Text in, status out."""
